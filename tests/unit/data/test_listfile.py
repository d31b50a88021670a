"""List files: path and person per line."""

import pytest

from manyface.base.errors import DataError
from manyface.data.records import ListRecords, find_text, open_records


@pytest.fixture
def write_list(write_faces):
    root = write_faces({"Ann": 2, "Bob Lee": 2})

    def write(*lines: str, encoding: str = "utf-8"):
        path = root / "faces.txt"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


def test_labels_as_numbers_order_by_number(write_list):
    path = write_list(
        "Ann/0001.jpg\t10", "Bob Lee/0002.jpg\t9", "", "# comment", "Bob Lee/0001.jpg\t9"
    )
    records = open_records(path)
    assert isinstance(records, ListRecords)
    assert list(records.identity_names) == ["9", "10"]
    assert records.first_images.tolist() == [0, 2, 3]
    assert records.describe(0).endswith("faces/Bob Lee/0001.jpg")
    assert records.file_name(2) == "0001.jpg"
    assert records.read(2)[:2] == b"\xff\xd8"


def test_a_space_separates_the_last_word(write_list):
    path = write_list("Bob Lee/0001.jpg bob", "Ann/0001.jpg  ann", encoding="utf-8-sig")
    records = open_records(path)
    assert list(records.identity_names) == ["ann", "bob"]


def test_names_with_spaces_need_a_tab(write_list):
    records = open_records(write_list("Bob Lee/0001.jpg\tBob Lee", "Ann/0001.jpg\tAnn"))
    assert list(records.identity_names) == ["Ann", "Bob Lee"]


def test_the_same_line_twice_counts_once(write_list):
    assert len(open_records(write_list("Ann/0001.jpg\t1", "Ann/0001.jpg\t1"))) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Ann/0001.jpg\t1", "Ann/0002.jpg"], "line 2: expected path, TAB or space, label"),
        (["Ann/0001.jpg\t"], "line 1: expected path"),
        (["1\t2\tAnn/0001.jpg"], "line 1: expected path"),
        (["Ann/0001.jpg\t1", "Ann/0001.jpg\t2"], "'1' in line 1 and to '2' in line 2"),
        (["Ann/1.jpg\t1", "Ann/0001.jpg\t1"], r"1 of 2 images do not exist \(first: line 1: Ann/1"),
        (["# nothing"], "names no image"),
    ],
)
def test_bad_lines_are_named(write_list, lines, message):
    with pytest.raises(DataError, match=message):
        open_records(write_list(*lines))


def test_lists_in_other_encodings_are_refused(write_list):
    with pytest.raises(DataError, match="not UTF-8"):
        open_records(write_list("Ann/0001.jpg\tJosé", encoding="latin-1"))


def test_texts_are_found_beside_the_data_and_on_disk(write_list, tmp_path):
    path = write_list("Ann/0001.jpg\t1")
    for place, text in ((path.parent / "people.txt", "in"), (tmp_path / "more.txt", "on disk")):
        place.write_text(text, encoding="utf-8")
    records = open_records(path)
    assert find_text(records, "people.txt") == "in"
    assert find_text(records, tmp_path / "more.txt") == "on disk"
    assert find_text(open_records(path.parent), "more.txt") == "on disk"
    with pytest.raises(DataError, match=r"not on disk either \(.*\); give the path"):
        find_text(records, "none.txt")

"""Keep-lists: what is left is what was not named, in every order, and other data are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import face, write_folder

from manyface.base.errors import DataError
from manyface.data.records import kept, open_records
from manyface.data.records.index import checksum_of
from manyface.data.records.kept import HEADER, KeptRecords, escaped, select_kept, write_keep_list
from manyface.data.records.recordio_writer import RecordIOWriter
from manyface.data.records.subset import select_records


class Numbers:
    """Records that are their numbers, of people with 3 each; the storage is in another order."""

    path = None

    def __init__(self, count: int) -> None:
        self.first_images = np.append(np.arange(0, count, 3), count)
        self.identity_names = [f"p{k}" for k in range(len(self.first_images) - 1)]
        self.order = np.random.default_rng(count).permutation(count)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.order)

    def read(self, index: int) -> int:
        return index

    def from_storage(self, places):
        return self.order[places]

    def will_read(self, indices) -> None:
        self.asked += indices.tolist()


@given(st.integers(1, 40).flatmap(
    lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1)))))  # fmt: skip
def test_the_view_is_the_rest(case):
    count, dropped = case
    full = Numbers(count)
    view = KeptRecords(full, dropped=np.array(sorted(dropped), np.int64))
    rest = [i for i in range(count) if i not in dropped]
    assert [view.read(i) for i in range(len(view))] == rest
    people = np.repeat(np.arange(len(view.first_images) - 1), np.diff(view.first_images))
    assert people.tolist() == [i // 3 for i in rest]
    stored = view.from_storage(np.arange(len(view)))
    expected = [i for i in full.order.tolist() if i not in dropped]
    assert [view.read(i) for i in stored.tolist()] == expected
    view.will_read(np.arange(len(view)))
    assert full.asked == rest


@pytest.fixture
def faces(tmp_path):
    people = {
        "Ann": {f"{i:03d}.jpg": face(i, size=24) for i in range(5)},
        "tab\tand \\ and\nline": {"a\tb.jpg": face(10, size=24), "1.png": b"x", "1.jpg": b"y"},
        "Zoe": {"only.jpg": face(20, size=24)},
    }
    return write_folder(tmp_path / "faces", people)


def names_of(records):
    starts = records.first_images.tolist()
    return {
        name: [records.file_name(i) for i in range(starts[p], starts[p + 1])]
        for p, name in enumerate(records.identity_names)
    }


def test_written_and_read_back_with_any_names(faces, tmp_path):
    records = open_records(faces)
    dropped = [1, 4, 5, 7, 8]
    keep = tmp_path / "keep.txt"
    assert write_keep_list(keep, records, dropped) == 5
    rest = select_kept(records, keep)
    assert [rest.read(i) for i in range(len(rest))] == [
        records.read(i) for i in range(9) if i not in dropped
    ]
    assert len(rest.identity_names) == 2  # one has lost all
    assert rest.describe(0) == records.describe(0)


def test_a_name_like_a_comment(tmp_path):
    people = {"#ann": {"#1.jpg": b"a", "2.jpg": b"b"}, "\\#": {"3.jpg": b"c"}}
    people["bob"] = {"#.jpg": b"d"}
    records = open_records(write_folder(tmp_path / "faces", people))
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, records, [0, 2])
    assert names_of(select_kept(records, keep)) == {"#ann": ["2.jpg"], "bob": ["#.jpg"]}


def test_names_by_stem_and_by_number(faces, tmp_path):
    keep = tmp_path / "keep.txt"
    keep.write_text(f"{HEADER}\n# by hand\n\nAnn\t2\nAnn\t003.png\n")
    assert names_of(select_kept(open_records(faces), keep))["Ann"] == [
        "000.jpg",
        "001.jpg",
        "004.jpg",
    ]


def test_records_of_one_name(tmp_path):
    path = tmp_path / "b.rec"
    writer = RecordIOWriter(path, identity_names=["Ann"])
    for image in (b"0", b"1", b"2"):
        writer.add(image, person=0, name="x.jpg")
    writer.finish()
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, open_records(path), [1])
    assert keep.read_text().splitlines()[1:] == [f"Ann\tx.jpg\t2\t{checksum_of(b'1'):08x}"]
    rest = select_kept(open_records(path), keep)
    assert [rest.read(i) for i in range(2)] == [b"0", b"2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no keep-list"),
        ("Ann\t1.jpg\n", "no keep-list"),
        (f"{HEADER}\nAnn\n", "line 2: expected identity"),
        (f"{HEADER}\nAnn\t001.jpg\tx\n", "line 2: expected identity"),
        (f"{HEADER}\nAnn\t001.jpg\t0\n", "line 2: expected identity"),
        (f"{HEADER}\nAnn\t001.jpg\t1\t1234567\n", "line 2: expected identity"),
        (f"{HEADER}\nAnn\t001.jpg\t1\t12345678\tx\n", "line 2: expected identity"),
        (f"{HEADER}\nBob\t001.jpg\n", "nobody called 'Bob'"),
        (f"{HEADER}\nAnn\t009.jpg\n", "has no record '009.jpg'"),
        (f"{HEADER}\nAnn\t001.jpg\t2\n", "has no record '001.jpg'"),
        (f"{HEADER}\n" + "".join(f"Ann\t00{i}.jpg\n" for i in range(5)) + "Zoe\tonly.jpg\n"
         + escaped("tab\tand \\ and\nline") + "\t1.png\n", None),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit(faces, tmp_path, text, words):
    keep = tmp_path / "keep.txt"
    keep.write_text(text)
    if words is None:
        assert len(select_kept(open_records(faces), keep)) == 2
        return
    with pytest.raises(DataError, match=words):
        select_kept(open_records(faces), keep)


def test_nothing_left_and_no_file(faces, tmp_path):
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, open_records(faces), range(9))
    with pytest.raises(DataError, match="leaves none of the"):
        select_kept(open_records(faces), keep)
    with pytest.raises(DataError, match="cannot read"):
        select_kept(open_records(faces), tmp_path / "none.txt")


def numbered_rec(path, images):
    """Without a list, so that nobody and nothing has a name."""
    writer = RecordIOWriter(path, identity_names=["Ann"])
    for image in images:
        writer.add(image, person=0, name="x.jpg")
    writer.finish()
    path.with_suffix(".lst").unlink()
    return open_records(path)


@pytest.mark.parametrize("view", [lambda r: r, select_records])
def test_a_list_of_another_file_whose_records_have_numbers(tmp_path, view):
    images = [b"0", b"1", b"2"]
    keep = tmp_path / "keep.txt"
    records = view(numbered_rec(tmp_path / "a.rec", images))
    write_keep_list(keep, records, [1])
    assert len(select_kept(records, keep)) == 2
    other = view(numbered_rec(tmp_path / "b.rec", [b"new", *images]))
    with pytest.raises(DataError, match="belongs to other data"):
        select_kept(other, keep)


def test_a_list_of_records_that_cannot_be_read(faces, tmp_path):
    (faces / "Ann" / "001.jpg").unlink()
    (faces / "Ann" / "001.jpg").symlink_to("nowhere")
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, open_records(faces), [1])
    assert keep.read_text().splitlines()[1:] == ["Ann\t001.jpg\t1\t-"]
    assert len(select_kept(open_records(faces), keep)) == 8


def test_long_lists_cost_little(tmp_path, monkeypatch):
    """Each name of a person is looked at once or twice, whatever the number of lines."""
    records = numbered_rec(tmp_path / "a.rec", [b"%d" % i for i in range(1000)])
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, records, range(999))
    looked, bare = [], kept._bare
    monkeypatch.setattr(kept, "_bare", lambda name: looked.append(name) or bare(name))
    assert len(select_kept(records, keep)) == 1
    assert len(looked) < 3000

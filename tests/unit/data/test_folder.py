"""Folders of persons, well kept and neglected."""

import os
import tarfile

import pytest

from manyface.base.errors import DataError
from manyface.data.records import FolderRecords, folder, open_records


def test_people_and_images_are_sorted_and_grouped(write_faces):
    records = open_records(write_faces({"Zoe": 2, "Ann": 3, "Bob": 1}))
    assert isinstance(records, FolderRecords)
    assert list(records.identity_names) == ["Ann", "Bob", "Zoe"]
    assert records.first_images.tolist() == [0, 3, 4, 6]
    assert [records.file_name(i) for i in range(3)] == ["0001.jpg", "0002.jpg", "0003.jpg"]
    assert records.read(3)[:2] == b"\xff\xd8"
    assert records.describe(3).endswith("faces/Bob/0001.jpg")


def test_shared_parents_are_cut_from_names(write_faces):
    root = write_faces({"lfw/a/Ann": 1, "lfw/a/Bob": 1})
    assert list(open_records(root).identity_names) == ["Ann", "Bob"]
    (root / "lfw" / "b" / "Ann").mkdir(parents=True)
    (root / "lfw" / "b" / "Ann" / "1.jpg").write_bytes(b"x")
    assert list(open_records(root).identity_names) == ["a/Ann", "a/Bob", "b/Ann"]


def test_one_person_keeps_the_name(write_faces):
    assert list(open_records(write_faces({"Ann": 2})).identity_names) == ["Ann"]


def test_hidden_and_other_files_are_ignored(write_faces):
    root = write_faces({"Ann": 1, "Bob": 1})
    for stray in (".DS_Store", "Ann/._0001.jpg", "Ann/Thumbs.db", "Bob/notes.txt"):
        (root / stray).write_bytes(b"stray")
    (root / ".cache").mkdir()
    (root / ".cache" / "1.jpg").write_bytes(b"stray")
    (root / "__MACOSX" / "Ann").mkdir(parents=True)
    (root / "__MACOSX" / "Ann" / "1.jpg").write_bytes(b"stray")
    assert len(open_records(root)) == 2


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".PnG", ".pgm", ".webp", ".bmp"])
def test_common_suffixes_count_in_any_case(tmp_path, suffix):
    (tmp_path / "Ann").mkdir()
    (tmp_path / "Ann" / f"1{suffix}").write_bytes(b"x")
    assert len(open_records(tmp_path)) == 1


def test_unicode_and_spaces(write_faces):
    root = write_faces({"José Núñez": 1, "李 明": 2, "a b": 1}, folder="my faces ü")
    records = open_records(root)
    assert list(records.identity_names) == ["José Núñez", "a b", "李 明"]
    assert all(records.read(i) for i in range(len(records)))


def test_names_that_are_no_utf8_can_be_read_and_printed(tmp_path):
    person = tmp_path / os.fsdecode(b"Jos\xe9")
    person.mkdir()
    (person / os.fsdecode(b"\xff.jpg")).write_bytes(b"content")
    records = open_records(tmp_path)
    assert records.read(0) == b"content"
    records.identity_names[0].encode("utf-8")


def test_equal_names_after_unicode_normalisation_are_refused(tmp_path):
    for spelling in ("Jos\u00e9", "Jose\u0301"):
        (tmp_path / spelling).mkdir()
        (tmp_path / spelling / "1.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="merge them or rename"):
        open_records(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"no images in .* expected one folder per person"):
        open_records(tmp_path)
    (tmp_path / "Ann").mkdir()
    with pytest.raises(DataError, match="no images"):
        open_records(tmp_path)


def test_images_without_person(write_faces, tmp_path):
    with pytest.raises(DataError, match=r"3 images lie directly in .* give its parent"):
        open_records(write_faces({"Ann": 3}) / "Ann")
    root = write_faces({"Ann": 1}, folder="mixed")
    (root / "cover.jpg").write_bytes(b"x")
    warnings: list[str] = []
    assert len(FolderRecords(root, warn=warnings.append)) == 1
    assert "1 images directly in" in warnings[0]


def test_links_are_followed_once_and_dangling_ones_kept(write_faces, tmp_path):
    root = write_faces({"Ann": 1})
    (root / "Ann" / "loop").symlink_to(root)
    (root / "Ann" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    records = open_records(root)
    assert len(records) == 2
    with pytest.raises(OSError, match="No such file"):
        records.read(1)


def test_pipes_are_ignored(write_faces):
    root = write_faces({"Ann": 1})
    os.mkfifo(root / "Ann" / "pipe.jpg")
    assert len(open_records(root)) == 1


def test_forbidden_folder_is_named(write_faces, monkeypatch):
    root = write_faces({"Ann": 1})

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read the folder .*faces.*Permission denied"):
        open_records(root)


def test_lists_beside_the_people_can_be_read(write_faces):
    root = write_faces({"Ann": 1})
    (root / "people.txt").write_text("Ann\n", encoding="utf-8")
    records = open_records(root)
    assert records.read_text("people.txt") == "Ann\n"
    with pytest.raises(DataError, match=r"cannot read .*none.txt"):
        records.read_text("none.txt")


def test_index_is_compact(write_faces):
    records = open_records(write_faces({"Ann": 20, "Bob": 20}))
    assert records.index_bytes <= 40 * (8 + len("0001.jpg")) + 100


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names)[::-1]])
def test_names_do_not_depend_on_the_order_that_a_disk_gives(write_faces, monkeypatch, order):
    root = write_faces({"people/Bob": 1, "people/Zoe": 2})
    (root / "alias").symlink_to(root / "people" / "Zoe")
    (root / "zebra").symlink_to(root / "people" / "Bob")
    found = folder._list_folder

    def listed(path, rest):
        files, folders = found(path, rest)
        return order(files), order(folders)

    monkeypatch.setattr(folder, "_list_folder", listed)
    assert list(open_records(root).identity_names) == ["alias", "people/Bob"]


def test_files_among_the_images_are_counted_and_lists_beside_them_are_not(write_faces, caplog):
    root = write_faces({"Ann": 2, "Bob": 1})
    for name in ("Ann/notes.txt", "Ann/.DS_Store", "Cyd/1.heic", "Cyd/2.HEIC", "lists/pairs.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    (root / "README").write_bytes(b"")
    archive = root.parent / "faces.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname="faces")
    for path in (root, archive):
        caplog.clear()
        assert list(open_records(path).identity_names) == ["Ann", "Bob"]
        (record,) = caplog.records
        assert "3 files are left out, they are no images (.heic: 2, .txt: 1)" in record.message
        assert "convert photos to JPEG" in record.message


def test_a_file_larger_than_any_image_is_not_read(write_faces):
    root = write_faces({"Ann": 2})
    with (root / "Ann" / "0001.jpg").open("wb") as file:
        file.truncate(20 << 30)  # takes no room
    with pytest.raises(OSError, match="more than any image"):
        open_records(root).read(0)

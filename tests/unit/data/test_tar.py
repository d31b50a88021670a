"""Folders of persons inside a tar file, read in place."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.data.records import TarRecords, open_records, select_records
from manyface.data.records.readahead import merged


def write_tar(path, files, *, form=tarfile.PAX_FORMAT, mode="w"):
    with tarfile.open(path, mode, format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_same_records_as_the_folder(write_faces, tmp_path):
    root = write_faces({"Zoe": 2, "Ann": 3})
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(root, arcname="faces")
    inside, outside = open_records(path), open_records(root)
    assert isinstance(inside, TarRecords)
    assert list(inside.identity_names) == list(outside.identity_names)
    np.testing.assert_array_equal(inside.first_images, outside.first_images)
    for i in range(len(outside)):
        assert inside.read(i) == outside.read(i)
        assert inside.file_name(i) == outside.file_name(i)
    assert inside.describe(0) == f"{path}:faces/Ann/0001.jpg"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_format(tmp_path, form):
    person = "p" * 90
    path = write_tar(tmp_path / "a.tar", [(f"{person}/{'n' * 80}.jpg", b"long")], form=form)
    records = open_records(path)
    assert list(records.identity_names) == [person]
    assert records.read(0) == b"long"


def test_any_order_of_members_and_later_copies_win(tmp_path):
    files = [("b/2.jpg", b"b2"), ("a/1.jpg", b"old"), ("b/1.jpg", b"b1"), ("a/1.jpg", b"new")]
    records = open_records(write_tar(tmp_path / "a.tar", files))
    assert [records.read(i) for i in range(len(records))] == [b"new", b"b1", b"b2"]


def test_dangerous_and_stray_members_are_ignored(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../x/1.jpg", "a/../../1.jpg", ".git/1.jpg", "a/._1.jpg", "a/readme.md"):
            tar.addfile(tarfile.TarInfo(name))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("a/link.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("./a/1.jpg")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"good"))
    warnings: list[str] = []
    records = TarRecords(path, warn=warnings.append)
    assert len(records) == 1
    assert records.read(0) == b"good"
    assert "2 linked images" in warnings[0]
    assert "tar --dereference" in warnings[0]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hard_links_are_the_file_they_share(tmp_path, form):
    """As tarfile reads them: long names, chains, and a path that is stored again after the link."""
    folder = f"{'f' * 90}/.store"
    first = f"{folder}/{'n' * 70}.jpg" if form != tarfile.USTAR_FORMAT else ".store/n.jpg"
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:

        def add(name: str, data: bytes = b"", link: str | None = None) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if link is not None:
                info.type, info.linkname = tarfile.LNKTYPE, link
            tar.addfile(info, io.BytesIO(data))

        add(first, b"content")
        add("Ann/1.jpg", link=f"./{first}")
        add("Ann/2.jpg", link="Ann/1.jpg")
        add("Bob/1.jpg", b"old")
        add("Bob/2.jpg", link="Bob/1.jpg")
        add("Bob/1.jpg", b"new")
        add("Bob/3.jpg", link="Bob/4.jpg")
        add("Bob/4.jpg", b"four")
        add("lists/pairs.txt", link=first)
    warnings: list[str] = []
    records = TarRecords(path, warn=warnings.append)
    assert [records.describe(i).rpartition(":")[2] for i in range(len(records))] == [
        *("Ann/1.jpg", "Ann/2.jpg", "Bob/1.jpg", "Bob/2.jpg", "Bob/4.jpg")
    ]
    contents = [records.read(i) for i in range(len(records))]
    assert contents == [b"content", b"content", b"new", b"old", b"four"]
    assert records.read_text("lists/pairs.txt") == "content"
    assert len(warnings) == 1
    assert warnings[0].startswith("1 linked images")


def test_loose_images_are_left_out_with_a_warning(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("cover.jpg", b"x"), ("a/1.jpg", b"y")])
    warnings: list[str] = []
    assert len(TarRecords(path, warn=warnings.append)) == 1
    assert "1 images at the top" in warnings[0]


def test_archive_without_images(tmp_path):
    with pytest.raises(DataError, match=r"no images in .* expected folders of persons"):
        open_records(write_tar(tmp_path / "a.tar", [("a/readme.txt", b"x")]))
    with pytest.raises(DataError, match="not data that can be read"):
        open_records(write_tar(tmp_path / "b.tar", []))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives_are_refused_clearly(tmp_path, mode):
    path = write_tar(tmp_path / "a.tar", [("a/1.jpg", b"x")], mode=mode)
    with pytest.raises(DataError, match=r"is compressed .* unpack it first"):
        open_records(path)


def test_cut_off_archive(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a/1.jpg", b"x" * 2000), ("a/2.jpg", b"y" * 2000)])
    whole = path.read_bytes()
    for length in (1000, 3 * 512 + 2048, 512 * 5 + 100):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut off"):
            open_records(path)


def test_damaged_header(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a/1.jpg", b"x"), ("a/2.jpg", b"y")])
    damaged = bytearray(path.read_bytes())
    damaged[1024:1030] = b"abcdef"
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="no valid tar header at byte 1024"):
        open_records(path)


@pytest.mark.parametrize("size", [b"-0000001000\0", b"+0000000001\0", b"00000_00001\0"])
def test_a_size_with_a_sign_is_no_size(tmp_path, size):
    header = bytearray(tarfile.TarInfo("a/1.jpg").tobuf())
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * ord(" "))
    path = tmp_path / "a.tar"
    path.write_bytes(header + bytes(1024))
    with pytest.raises(DataError, match="a member without size at byte 0"):
        open_records(path)


def test_sparse_members_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("a/1.jpg")
    info.pax_headers = {"GNU.sparse.major": "1"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(DataError, match="sparse"):
        open_records(path)


def test_sizes_beyond_eight_gigabytes_are_understood(tmp_path):
    info = tarfile.TarInfo("a/1.jpg")
    info.size = 1 << 34
    header = info.tobuf(tarfile.GNU_FORMAT)
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(512 + (1 << 34) + 1024)  # a hole on disk
    records = open_records(path)
    assert records._sizes.tolist() == [1 << 34]


def test_texts_inside(tmp_path):
    files = [("lists/people.txt", "José\n".encode()), ("a/1.jpg", b"x"), ("bad.txt", b"\xff\xfe")]
    records = open_records(write_tar(tmp_path / "a.tar", files))
    assert records.read_text("lists/people.txt") == "José\n"
    with pytest.raises(DataError, match=r"no file 'none.txt' .*lists/people.txt"):
        records.read_text("none.txt")
    with pytest.raises(DataError, match="not UTF-8"):
        records.read_text("bad.txt")


def test_many_threads_read_at_once(tmp_path):
    contents = [bytes([i]) * (i + 1) for i in range(200)]
    files = [(f"p{i // 10:02d}/{i % 10}.jpg", data) for i, data in enumerate(contents)]
    records = open_records(write_tar(tmp_path / "a.tar", files))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(records.read, list(range(200)) * 5)) == contents * 5


def test_real_sets(lfw_tar, orl_tar):
    lfw, orl = open_records(lfw_tar), open_records(orl_tar)
    assert (len(lfw), len(lfw.identity_names)) == (13_233, 5_749)
    assert (len(orl), len(orl.identity_names)) == (400, 40)
    assert lfw.index_bytes / len(lfw) < 64
    assert lfw.read_text("lfw-lists/pairs.txt").startswith("10\t300")


def test_records_in_the_order_of_the_archive(tmp_path):
    names = ["b/2.jpg", "a/9.jpg", "c/1.jpg", "a/1.jpg", "b/1.jpg"]
    records = open_records(write_tar(tmp_path / "t.tar", [(name, name.encode()) for name in names]))
    stored = [records.read(int(i)).decode() for i in records.from_storage(np.arange(5))]
    assert stored == names
    kept = select_records(records, people=["a", "c"])
    stored = [kept.read(int(i)).decode() for i in kept.from_storage(np.arange(3))]
    assert stored == ["a/9.jpg", "c/1.jpg", "a/1.jpg"]
    kept.will_read(np.arange(3))  # changes nothing


def test_neighbours_are_asked_for_together():
    offsets = np.array([5_000_000, 0, 3000, 200_000])
    sizes = np.array([10, 2500, 1000, 5])
    assert merged(offsets, sizes) == [(0, 4000), (200_000, 200_005), (5_000_000, 5_000_010)]

"""Tar shards: by ours and by webdataset, in all namings, on disk and at addresses, damaged."""

import io
import json
import re
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import stores

from manyface.base.errors import DataError
from manyface.data.records import TarRecords, find_text, open_records
from manyface.data.records.files import PlainFile
from manyface.data.records.headers import iterate_members
from manyface.data.records.remote import Address, as_location, expand
from manyface.data.records.shards import ShardWriter, samples

JPEG = b"\xff\xd8"


def make(path, people=stores.PEOPLE, **options):
    return ShardWriter(path, identity_names=people, **options)


def as_tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path, members):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(as_tar(members))
    return path


def write_faces(path, **options):
    writer = make(path, **options)
    stores.write(writer, stores.faces())
    writer.finish()
    return path


def test_written_and_read(tmp_path):
    folder = write_faces(tmp_path / "faces", max_bytes=30_000)
    names = sorted(path.name for path in folder.iterdir())
    assert names[:2] == ["faces-000000.tar", "faces-000001.tar"]
    records = open_records(folder)
    assert stores.content(records) == stores.expected(stores.faces())
    assert records.describe(0) == f"{folder / names[0]} at byte 512 (000.jpg)"
    stores.check_concurrent(records)


@pytest.mark.parametrize("max_bytes", [12_000, 1 << 30])
def test_written_anew_after_a_stop_at_every_commit(tmp_path, max_bytes):
    stores.check_resume(lambda path: make(path, max_bytes=max_bytes), tmp_path / "faces")


@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_it(tmp_path):
    import webdataset

    folder = write_faces(tmp_path / "faces", max_bytes=40_000)
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in found] == [f"{i:09d}" for i in range(23)]
    for sample, (image, person, name) in zip(found, stores.faces(), strict=True):
        assert (sample["jpg"], sample["cls"]) == (image, b"%d" % person)
        assert json.loads(sample["json"]) == {"person": stores.PEOPLE[person], "name": name}


@pytest.mark.filterwarnings("ignore")
def test_webdataset_writes_it(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w-000000.tar")) as sink:
        for i in range(9):
            sink.write({"__key__": f"{i:04d}", "jpg": JPEG + bytes([i]), "cls": i % 2})
    records = open_records(tmp_path / "w-000000.tar")
    assert list(records.identity_names) == ["0", "1"]
    assert [records.read(i)[-1] for i in range(9)] == [0, 2, 4, 6, 8, 1, 3, 5, 7]


@pytest.mark.parametrize("members", [
    [("a.jpg", b"1"), ("a.cls", b"7\n"), ("b.cls", b"8"), ("b.png", b"2")],
    [("x/a.jpg", b"1"), ("x/a.json", b'{"label": 7}'), ("y/b.json", b'{"id": "8"}'),
     ("y/b.webp", b"2")],
    [("a.left.jpg", b"1"), ("a.cls", b"7"), ("b.jpeg", b"2"), ("b.cls", b"8"), ("c.txt", b"x")],
])  # fmt: skip
def test_namings(tmp_path, members):
    records = open_records(write_tar(tmp_path / "s.tar", members), warn=lambda _: None)
    assert list(records.identity_names) == ["7", "8"]
    assert stores.read_all(records) == [b"1", b"2"]


def test_labels_as_plain_text_and_people_of_folders_over_several_shards(tmp_path):
    write_tar(tmp_path / "t" / "a.tar", [("1.jpg", b"1"), ("1.txt", b"Zoe"), ("2.jpg", b"2"),
                                         ("2.txt", "José".encode())])  # fmt: skip
    assert list(open_records(tmp_path / "t").identity_names) == ["José", "Zoe"]
    write_tar(tmp_path / "f" / "0.tar", [("x/Zoe/1.jpg", b"1"), ("x/Ann/1.jpg", b"2")])
    write_tar(tmp_path / "f" / "1.tar", [("x/Zoe/2.jpg", b"3"), ("loose.jpg", b"4")])
    records = open_records(tmp_path / "f", warn=lambda _: None)
    assert list(records.identity_names) == ["Ann", "Zoe"]
    assert stores.read_all(records) == [b"2", b"1", b"3"]
    assert "loose: no label" in records.index.faults[0]


def test_a_folder_of_persons_in_a_tar_is_none(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("Ann/1.jpg", b"1"), ("Ann/1.json", b'{"box": 1}')])
    assert isinstance(open_records(path, warn=lambda _: None), TarRecords)
    (tmp_path / "faces" / "Ann").mkdir(parents=True)
    (tmp_path / "faces" / "Ann" / "1.jpg").write_bytes(JPEG)
    write_tar(tmp_path / "faces" / "old.tar", [("a.jpg", b"1"), ("a.cls", b"1")])
    assert list(open_records(tmp_path / "faces").identity_names) == ["Ann"]


@pytest.mark.parametrize("name", ["s-{000..002}.tar", "s-*.tar", "s-00{0..1}.tar", "s-{000..001}*"])
def test_names_for_several(tmp_path, name):
    for i in range(3):
        write_tar(tmp_path / f"s-{i:03d}.tar", [(f"{i}.jpg", b"%d" % i), (f"{i}.cls", b"0")])
    count = 2 if "1}" in name else 3
    records = open_records(tmp_path / name)
    assert stores.read_all(records) == [b"0", b"1", b"2"][:count]
    assert stores.read_all(open_records(tmp_path / name)) == stores.read_all(records)


def test_names_for_several_by_words(tmp_path):
    for name in ("left/a", "left/b", "right/a"):
        path = tmp_path / f"{name}.tar"
        write_tar(path, [("0.jpg", name.encode()), ("0.cls", b"0")])
    for pattern, expected in (
        ("{right,left}/a.tar", [b"right/a", b"left/a"]),
        ("left/{b,a}.tar", [b"left/b", b"left/a"]),
        ("{left,right}", [b"left/a", b"left/b", b"right/a"]),
        ("{left,right}/*.tar", [b"left/a", b"left/b", b"right/a"]),
    ):
        assert stores.read_all(open_records(tmp_path / pattern)) == expected
    with pytest.raises(DataError, match=r"left/c\.tar: No such file"):
        open_records(tmp_path / "left" / "{a,c}.tar")


def test_a_file_that_is_called_like_a_pattern_is_itself(tmp_path):
    path = write_tar(tmp_path / "s-{0..1},{a,b}.tar", [("0.jpg", b"x"), ("0.cls", b"0")])
    assert stores.read_all(open_records(path)) == [b"x"]
    folder = tmp_path / "{a,b}"
    write_tar(folder / "s.tar", [("0.jpg", b"y"), ("0.cls", b"0")])
    assert stores.read_all(open_records(folder / "s.tar")) == [b"y"]
    assert stores.read_all(open_records(folder)) == [b"y"]


@pytest.mark.parametrize("text, address", [
    ("s3://b/a.tar", "s3://b/a.tar"), ("simplecache::memory://b", "simplecache::memory://b"),
    ("faces/a:b", None), ("/a:/b", None), ("~/a", None),
])  # fmt: skip
def test_addresses_are_told_from_paths_also_as_paths(text, address):
    for given in (text, Path(text)):
        found = as_location(given)
        assert (found if isinstance(found, Address) else None) == address


def test_expansion():
    assert expand("a{8..10}b{00..01}") == [f"a{i}b0{j}" for i in (8, 9, 10) for j in (0, 1)]
    assert expand("{a,b,}/x-{08..10}.tar")[::4] == ["a/x-08.tar", "b/x-09.tar", "/x-10.tar"]
    assert expand("{9..010}") == ["009", "010"]
    assert expand("s3://b/{one}/{}/a.tar") == ["s3://b/{one}/{}/a.tar"]
    for pattern in ("{5..4}", "{0..99999999}", "{a,b}{0..999999}"):
        with pytest.raises(DataError, match="expected 1 to"):
            expand(pattern)
    with pytest.raises(DataError, match="braces within braces"):
        expand("{a,b{0..2}}.tar")


def test_damaged_shards_do_not_stop_the_others(tmp_path):
    for i in range(3):
        members = [(f"{i}{j}.{suffix}", data) for j in range(4)
                   for suffix, data in (("jpg", JPEG * 900), ("cls", b"1"))]  # fmt: skip
        write_tar(tmp_path / "s" / f"{i:06d}.tar", members)
    cut = tmp_path / "s" / "000001.tar"
    cut.write_bytes(cut.read_bytes()[:7000])
    records = open_records(tmp_path / "s", warn=lambda _: None)
    assert len(records) == 4 + 1 + 4  # of the sample at the cut nobody knows whether it is whole
    assert "cut off" in records.index.faults[0]


@pytest.mark.parametrize("members, said", [
    ([("b.cls", b"\xff\xfe")], r"expected a label as UTF-8 text in .cls, got b'\xff\xfe'"),
    ([("b.json", b"{label: 3")], "expected JSON in UTF-8 in .json, got b'{label: 3'"),
    ([("b.json", '{"label": 3}'.encode("utf-16"))], "expected JSON in UTF-8 in .json, got b'"),
    ([("b.json", b"[" * 9000)], "expected JSON in UTF-8 in .json, got b'[[["),
    ([("b.json", b'{"label": [1]}')], "expected a label, a number or a name, got a list"),
    ([("b.json", b'{"label": 1.5}')], "expected a label, a number or a name, got 1.5"),
    ([("b.cls", b"x" * 900)], "expected a number from 0 on as its label, got 'xxx"),
])  # fmt: skip
def test_what_is_said_of_labels(tmp_path, members, said):
    good = [("a.jpg", b"1"), ("a.cls", b"0"), ("b.jpg", b"2")]
    records = open_records(write_tar(tmp_path / "a.tar", good + members), warn=lambda _: None)
    (fault,) = records.index.faults
    assert said in fault
    assert "codec" not in fault
    assert "column" not in fault
    assert len(fault) < 200 + len(str(tmp_path))


def test_half_a_character_is_no_name(tmp_path):
    about = b'{"label": 3, "person": "\\ud800", "name": "x\\udfff.jpg"}'
    records = open_records(write_tar(tmp_path / "a.tar", [("0.jpg", b"1"), ("0.json", about)]))
    assert (list(records.identity_names), records.file_name(0)) == (["3"], "0.jpg")


def test_a_single_file_with_labels_as_text(tmp_path):
    """At its top, where a folder of persons has no photo; elsewhere a .txt is no label."""
    members = [("1.jpg", b"1"), ("1.txt", b"Zoe\n"), ("2.jpg", b"2"), ("2.txt", b"Ann"),
               ("3.jpg", b"3"), ("3.txt", b"Zoe")]  # fmt: skip
    records = open_records(write_tar(tmp_path / "a.tar", members))
    assert list(records.identity_names) == ["Ann", "Zoe"]
    assert stores.read_all(records) == [b"2", b"1", b"3"]
    for other in ([("Ann/1.jpg", b"1"), ("Ann/1.txt", b"a caption")],
                  [*members[:2], ("Ann/1.jpg", b"1")]):  # fmt: skip
        path = write_tar(tmp_path / "b.tar", other)
        assert isinstance(open_records(path, warn=lambda _: None), TarRecords)


@pytest.mark.parametrize("label", [b"-1", b"1.5", b"", b"\xff", b"x" * 5000])
def test_labels_that_are_none(tmp_path, label):
    members = [("a.jpg", b"1"), ("a.cls", b"0"), ("b.jpg", b"2"), ("b.cls", label)]
    records = open_records(write_tar(tmp_path / "a.tar", members), warn=lambda _: None)
    assert (len(records), records.index.num_faults) == (1, 1)


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/faces", recursive=True)


@pytest.fixture
def remote(tmp_path, memory, monkeypatch):
    """A set at memory://faces, whose index is kept in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_faces(tmp_path / "faces", max_bytes=30_000)
    for path in folder.iterdir():
        memory.pipe(f"/faces/{path.name}", path.read_bytes())
    return memory


@pytest.mark.parametrize("address", ["memory://faces", "memory://{faces,faces/none-*}",
                                     "memory://faces/*.tar", "memory://faces/",
                                     "memory://faces/faces-{000000..000005}.tar"])  # fmt: skip
def test_at_an_address(remote, tmp_path, address):
    last = max(int(name[-10:-4]) for name in remote.ls("/faces", detail=False))
    address = address.replace("000005", f"{last:06d}")
    records = open_records(address)
    assert stores.content(records) == stores.expected(stores.faces())
    assert isinstance(records.path, Address)
    assert str(records.path) == address
    assert records.describe(0).startswith("memory://")
    (kept,) = (tmp_path / "cache" / "manyface").glob("*.manyface-index")
    before = kept.stat().st_mtime_ns
    stores.check_concurrent(open_records(address))
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="give the path of one that is there"):
        find_text(records, "people.txt")


def test_a_lost_connection_makes_no_index(remote, monkeypatch):
    def lost(*_args, **_options):
        raise ConnectionResetError("Connection reset by peer")

    address = "memory://faces/faces-{000000..000001}.tar"
    with monkeypatch.context() as patch:
        patch.setattr("manyface.data.records.remote._Stream.read", lost)
        with pytest.raises(DataError, match=r"cannot read .*tar: Connection reset.*; try again"):
            open_records(address)
    assert len(open_records(address)) > 0


def test_address_whose_files_change_or_are_gone(remote):
    records = open_records("memory://faces")
    remote.pipe("/faces/faces-000001.tar", as_tar([("a.jpg", JPEG), ("a.cls", b"9")]))
    assert "9" in open_records("memory://faces").identity_names
    remote.rm("/faces/faces-000000.tar")
    with pytest.raises(OSError, match="faces-000000"):
        records.read(0)
    with pytest.raises(DataError, match=r"cannot read memory://faces/none.tar"):
        open_records("memory://faces/none.tar")
    with pytest.raises(DataError, match=r"no .tar files at memory://nothing"):
        open_records("memory://nothing")


def test_addresses_that_nobody_can_open(monkeypatch):
    with pytest.raises(DataError, match="cannot read nonsense://x"):
        open_records("nonsense://x/a.tar")
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(DataError, match=r"pip install '.\[remote\]'"):
        open_records("s3://x/a.tar")


class Ranges(SimpleHTTPRequestHandler):
    """A web server that answers range requests, as stores of objects do."""

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted:
            return super().do_GET()
        with open(self.translate_path(self.path), "rb") as file:  # noqa: PTH123
            data = file.read()
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        return None

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_over_http(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_faces(tmp_path / "faces", max_bytes=30_000)
    last = len(list(folder.iterdir())) - 1
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Ranges(*args, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/faces-{{000000..{last:06d}}}.tar"
        records = open_records(address)
        assert stores.content(records) == stores.expected(stores.faces())
        assert stores._bytes_in_fork(records) == len(b"".join(stores.read_all(records)))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_samples_are_as_webdataset_groups_them(lfw_tar):
    count = sum("jpg" in sample for _, sample in samples(iterate_members(PlainFile(lfw_tar))))
    assert count == 13_233


def test_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, 500)


@pytest.mark.slow
def test_all_of_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, None)


def test_reads_ahead(tmp_path, monkeypatch):
    writer = make(tmp_path / "faces", max_bytes=40_000)
    stores.write(writer, stores.faces())
    writer.finish()
    records = open_records(tmp_path / "faces")
    assert len(records.store.files) > 2
    stores.check_reads_ahead(monkeypatch, records)
    records.store.files[0].unlink()
    open_records(tmp_path / "faces").will_read(np.arange(5))


def shard_of(tmp_path, *members):
    """The records of a shard with `members`, and what was said of them."""
    buffer, said = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "f-000000.tar").write_bytes(buffer.getvalue())
    return open_records(folder, warn=said.append), said


def test_the_photo_is_taken_and_not_what_stands_beside_it(tmp_path):
    records, said = shard_of(
        tmp_path, ("0.depth.png", b"depth"), ("0.jpg", b"photo"), ("0.cls", b"3")
    )
    assert (records.read(0), said) == (b"photo", [])


def test_a_key_that_comes_twice_in_a_row_is_two_samples(tmp_path):
    records, _ = shard_of(
        tmp_path, ("0.jpg", b"a"), ("0.cls", b"3"), ("0.jpg", b"b"), ("0.cls", b"4")
    )
    assert [records.read(i) for i in range(len(records))] == [b"a", b"b"]
    assert list(records.identity_names) == ["3", "4"]


def test_photos_whose_names_differ_after_a_dot_are_not_lost_in_silence(tmp_path):
    records, said = shard_of(tmp_path, ("Ann/a.0.jpg", b"a"), ("Ann/a.1.jpg", b"b"))
    assert len(records) == 1
    assert "a.1.jpg" in said[0]

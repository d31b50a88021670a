"""Converting a set: equal bytes through every format, killed anywhere, nothing outside."""

import json
import multiprocessing
import os
import shutil
import struct
import tracemalloc
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import face, write_folder, write_recordio

from manyface.base.errors import DataError
from manyface.cli.program import main
from manyface.data.records import open_records, recordio_writer
from manyface.data.records.base import GroupedRecords
from manyface.data.records.kept import HEADER, KeptRecords, select_kept, write_keep_list
from manyface.data.records.merged import MergedRecords
from manyface.data.records.naming import is_hidden, safe_name, unique_names
from manyface.data.records.plain_writers import FolderWriter, TarWriter
from manyface.data.records.recordio_writer import RecordIOWriter
from manyface.data.records.writer import DraftFile
from manyface.data.tools import convert as module
from manyface.data.tools.convert import ConvertOptions, convert
from manyface.data.tools.formats import FORMATS, checked_target
from manyface.data.tools.journal import Journal
from manyface.data.tools.measures import fingerprint
from manyface.data.tools.reading import chunks_of

NONE = module.np.zeros(0, int)
MAGIC = struct.pack("<I", 0xCED7230A)
SUFFIXES = {"folder": "", "list": ".txt", "tar": ".tar", "recordio": ".rec", "lmdb": ".lmdb",
            "parquet": ".parquet", "shards": ".shards"}  # fmt: skip


def quiet(name):
    return lambda done, total=None: None


def run(source, destination, form, **options):
    records = source if hasattr(source, "read") else open_records(source)
    convert(records, destination, ConvertOptions(form=form, **options), show=quiet)
    return destination


def content(path) -> dict[str, dict[str, bytes]]:
    records = open_records(path)
    starts = records.first_images.tolist()
    return {
        name: {records.file_name(i): records.read(i) for i in range(starts[p], starts[p + 1])}
        for p, name in enumerate(records.identity_names)
    }


@pytest.fixture
def faces(tmp_path):
    """13 photos of 4 people, one with the magic number of RecordIO in odd and even places."""
    people = {
        f"person {k}": {f"{i:04d}.jpg": face(10 * k + i, size=24) for i in range(k)}
        for k in range(1, 5)
    }
    people["person 2"]["0007.png"] = b"\x89PNG" + MAGIC + b"x" + MAGIC + MAGIC + b"yyy" + MAGIC
    people["person 3"]["0008.jpg"] = b""
    people["person 4"]["0009.jpg"] = bytes(range(256)) * 5
    return write_folder(tmp_path / "faces", people)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files but indices, which hold times, and LMDB's, which count its commits."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".manyface-index", ".mdb"))
    }


@pytest.mark.parametrize("first", SUFFIXES)
@pytest.mark.parametrize("second", SUFFIXES)
def test_from_every_format_to_every_other(faces, tmp_path, first, second):
    one = run(faces, tmp_path / "one" / f"set{SUFFIXES[first]}", first)
    two = run(one, tmp_path / "two" / f"set{SUFFIXES[second]}", second)
    assert content(two) == content(one) == content(faces)
    assert not list(tmp_path.rglob("*.convert.*"))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("options", [{"headers": True}, {"shuffle": 5}, {"verify": False}])
def test_flavours_of_recordio(faces, tmp_path, options):
    (faces / "person 3" / "0008.jpg").write_bytes(b"x")
    path = run(faces, tmp_path / "out" / "train.rec", "recordio", **options)
    assert content(path) == content(faces)
    records = open_records(path)
    assert records.index.checksums is not None
    places = records.index.labels
    assert (places[1:] < places[:-1]).any() == ("shuffle" in options)
    path.with_suffix(".idx").unlink()  # the file alone says as much
    assert list(map(len, content(path).values())) == [1, 3, 4, 5]


def small_slice(tmp_path, lfw_tar, count):
    records = open_records(lfw_tar)
    folder = tmp_path / "slice"
    for i in range(count):
        person = records.describe(i).split("/")[-2]
        (folder / person).mkdir(parents=True, exist_ok=True)
        (folder / person / records.file_name(i)).write_bytes(records.read(i))
    return folder


def through_all(source, tmp_path):
    path = source
    for k, (form, suffix) in enumerate([*SUFFIXES.items(), *SUFFIXES.items()]):
        path = run(path, tmp_path / str(k) / f"set{suffix}", form)
        assert content(path) == content(source)


def test_a_slice_of_lfw_through_all_formats(lfw_tar, tmp_path):
    through_all(small_slice(tmp_path, lfw_tar, 400), tmp_path)


@pytest.mark.slow
def test_lfw_through_all_formats(lfw_tar, tmp_path):
    through_all(lfw_tar, tmp_path)


def killed_at(event, source, destination, form, options):
    """Convert in this process, which ends without a word at an `event`, counted from 0."""
    seen = 0

    def dying(function):
        def call(*args, **kwargs):
            nonlocal seen
            if seen == event:
                os._exit(9)
            seen += 1
            answer = function(*args, **kwargs)
            if seen == event:
                os._exit(9)
            seen += 1
            return answer

        return call

    Path.replace = dying(Path.replace)
    Path.write_bytes = dying(Path.write_bytes)
    DraftFile.write, DraftFile.sync = dying(DraftFile.write), dying(DraftFile.sync)
    Journal.save, Journal.add = dying(Journal.save), dying(Journal.add)
    Journal.remove = dying(Journal.remove)
    os.fsync = dying(os.fsync)
    run(source, destination, form, **options)
    os._exit(0)


KILLED = pytest.mark.parametrize(
    ("form", "options"),
    [
        ("folder", {}),
        ("list", {}),
        ("tar", {}),
        ("recordio", {"shuffle": 3}),
        ("shards", {}),
        *(
            pytest.param(form, options, marks=pytest.mark.slow)
            for form, options in (
                ("recordio", {}),
                ("recordio", {"headers": True}),
                ("lmdb", {}),
                ("parquet", {}),
            )
        ),
    ],
)


@KILLED
def test_killed_and_gone_on_with(faces, tmp_path, monkeypatch, form, options):
    kill_at_every(11, faces, tmp_path, monkeypatch, form, options)


@pytest.mark.slow
@KILLED
def test_killed_anywhere_and_gone_on_with(faces, tmp_path, monkeypatch, form, options):
    kill_at_every(1, faces, tmp_path, monkeypatch, form, options)


def kill_at_every(step, faces, tmp_path, monkeypatch, form, options):
    """Kill at events 0, step, 2 step, ... and once or twice more; then let it end."""
    (faces / "person 3" / "0008.jpg").write_bytes(b"x")
    monkeypatch.setattr(module, "chunks_of", lambda *a, **k: chunks_of(*a, **{**k, "size": 2}))
    options = {**options, "commit_records": 4, "threads": 1}
    name = f"set{SUFFIXES[form]}"
    whole = run(faces, tmp_path / "whole" / name, form, **options)
    fork = multiprocessing.get_context("fork")
    event, codes = 0, set()
    while 0 not in codes:  # until there is no such event any more
        folder = tmp_path / f"killed{event}"
        for again in (event, event // 2 + 3, None):
            process = fork.Process(
                target=killed_at, args=(again, faces, folder / name, form, options)
            )
            if (folder / name).exists() and not (folder / f"{name}.convert.json").exists():
                break  # killed when all was done
            process.start()
            process.join()
            codes |= {process.exitcode} if again == event else set()
            if process.exitcode == 0:
                break
            assert process.exitcode == 9
        assert files_of(folder) == files_of(whole.parent), event
        assert content(folder / name) == content(faces)
        shutil.rmtree(folder)
        event += step
    assert event > 40
    assert codes == {0, 9}


def test_layout_of_im2rec(tmp_path):
    """Every byte by hand, from dmlc-core's recordio.cc and mxnet's recordio.py."""
    path = tmp_path / "a.rec"
    writer = RecordIOWriter(path, identity_names=["Ann", "Bob"])
    writer.add(b"abcde", person=0, name="1.jpg")
    # the header has 24 bytes, so what follows it begins at a multiple of 4
    writer.add(b"wxyz" + MAGIC + b"12" + MAGIC + b"3", person=1, name="2.jpg")
    writer.finish()
    first = (
        "0a23d7ce 1d000000"  # magic; whole, 29 bytes
        "00000000 00000000 0000000000000000 0000000000000000"  # flag 0, label 0.0, id 0, id2 0
        "6162636465 000000"  # the image, filled up to a multiple of 4
    )
    second = (
        "0a23d7ce 1c000020"  # first part (1 << 29), 28 bytes
        "00000000 0000803f 0100000000000000 0000000000000000"  # label 1.0, id 1
        "7778797a"  # up to the magic number at a multiple of 4, which goes
        "0a23d7ce 07000060"  # last part (3 << 29), 7 bytes
        "3132 0a23d7ce 33 00"  # a magic number elsewhere stays
    )
    assert path.read_bytes() == bytes.fromhex(first + second)
    assert path.with_suffix(".idx").read_bytes() == b"0\t0\n1\t40\n"
    assert path.with_suffix(".lst").read_bytes() == b"0\t0\tAnn/1.jpg\n1\t1\tBob/2.jpg\n"
    assert (tmp_path / "property").read_text() == "2,112,112\n2\n"
    assert content(path)["Bob"] == {"2.jpg": b"wxyz" + MAGIC + b"12" + MAGIC + b"3"}


def test_layout_of_insightface(tmp_path):
    path = tmp_path / "train.rec"
    writer = RecordIOWriter(path, identity_names=["Ann", "Bob"], headers=True)
    for person, image in ((0, b"aaaa"), (0, b"bbbb"), (1, MAGIC)):
        writer.add(image, person=person, name=image.hex())
    writer.finish()

    def photo(key, label, image):
        return (
            "0a23d7ce 24000000 02000000 00000000" + f"{key:02x}" + "00" * 15 + label + "0000803f"
        ) + image.hex()  # flag 2: two labels, the class and 1.0

    header = "0a23d7ce 20000000 02000000 00000000 {:02x}" + "00" * 15
    expected = (
        photo(1, "00000000", b"aaaa")
        + photo(2, "00000000", b"bbbb")
        # the magic number at a multiple of 4 divides the record: 32 bytes and none
        + "0a23d7ce 20000020 02000000 00000000 03" + "00" * 15 + "0000803f 0000803f"
        + "0a23d7ce 00000060"
        + header.format(0) + "00008040 0000c040"  # 4.0, 6.0: identities have keys 4 and 5
        + header.format(4) + "0000803f 00004040"  # photos 1 and 2: [1.0, 3.0)
        + header.format(5) + "00004040 00008040"  # photo 3: [3.0, 4.0)
    )  # fmt: skip
    assert path.read_bytes() == bytes.fromhex(expected)
    assert path.with_suffix(".idx").read_bytes() == (
        b"1\t0\n2\t44\n3\t88\n0\t136\n4\t176\n5\t216\n"
    )
    assert [list(images.values()) for images in content(path).values()] == [
        [b"aaaa", b"bbbb"],
        [MAGIC],
    ]


def test_header_records_need_people_in_order(tmp_path):
    writer = RecordIOWriter(tmp_path / "a.rec", identity_names=["Ann", "Bob"], headers=True)
    writer.add(b"b", person=1, name="1")
    with pytest.raises(DataError, match="no bytes"):
        writer.add(b"", person=1, name="2")
    with pytest.raises(DataError, match="neighbours"):
        writer.add(b"a", person=0, name="1")
    writer.close()


EVIL = ["../up", "/etc/passwd", "..", ".", "", ".hidden", "a\0b", "x" * 400, "line\nend",
        "tab\there", "__MACOSX", " space ", "#comment", "caf\udce9", "a\u2028b",
        "a\\b"]  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.sampled_from(EVIL)))
def test_safe_names(raw):
    name = safe_name(raw)
    assert safe_name(name) == name
    assert name
    assert "/" not in name
    assert not is_hidden(name)
    assert len(name.encode()) <= 255
    assert len(f"{name}\tx".splitlines()) == 1
    assert name.strip() == name


@given(
    st.lists(st.sampled_from(["a", "a-2", "a.jpg", "a-2.jpg", "b/a", "b_a", "../a"]), max_size=9)
)
def test_unique_names(names):
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    for raw, name in zip(names, unique, strict=True):
        if names.count(raw) == 1 and [safe_name(other) for other in names].count(raw) == 1:
            assert name == safe_name(raw)


class Evil:
    """Records whose people and images have the names EVIL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_names = EVIL
        self.first_images = module.np.arange(0, 2 * len(EVIL) + 1, 2)

    def __len__(self) -> int:
        return 2 * len(EVIL)

    def read(self, index):
        return b"%d" % index

    def file_name(self, index):
        return EVIL[index // 2]

    def describe(self, index):
        return "record"


@pytest.mark.parametrize("form", SUFFIXES)
def test_names_of_strangers_stay_inside(tmp_path, form):
    inner = tmp_path / "a" / "b" / "c"
    inner.mkdir(parents=True)
    path = run(Evil(tmp_path), inner / f"set{SUFFIXES[form]}", form)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and inner not in p.parents]
    assert outside == []
    found = content(path)
    assert len(found) == len(EVIL)
    assert sorted(image for images in found.values() for image in images.values()) == sorted(
        b"%d" % i for i in range(2 * len(EVIL))
    )


@pytest.mark.parametrize("kind", [FolderWriter, TarWriter])
@pytest.mark.parametrize("name", ["../up.jpg", "/etc/passwd", ".hidden", "a/b", ""])
def test_writers_refuse_names_that_are_paths(tmp_path, kind, name):
    writer = kind(tmp_path / "out", identity_names=["Ann", "../Bob"])
    with pytest.raises(DataError, match="cannot be the name of a file"):
        writer.add(b"x", person=0, name=name)
    with pytest.raises(DataError, match="cannot be the name of a file"):
        writer.add(b"x", person=1, name="1.jpg")
    writer.close()


def test_what_is_there_is_not_overwritten(faces, tmp_path):
    path = run(faces, tmp_path / "set.tar", "tar")
    before = path.read_bytes()
    with pytest.raises(DataError, match="is there already"):
        run(faces, path, "tar")
    assert path.read_bytes() == before
    (tmp_path / "other.tar.part").write_bytes(b"somebody's")
    with pytest.raises(DataError, match=r"other\.tar\.part is there already"):
        run(faces, tmp_path / "other.tar", "tar")


def begun(faces, path):
    """A conversion that was cut off before its first photo."""
    with Journal(path) as journal:
        job = module._job(open_records(faces), ConvertOptions(form="tar"))
        journal.save(job, done=0, position={"length": 0}, stage="writing")
    return path


def test_a_conversion_of_something_else_is_not_gone_on_with(faces, tmp_path):
    path = begun(faces, tmp_path / "set.tar")
    (faces / "person 1" / "0000.jpg").rename(faces / "person 1" / "other.jpg")
    with pytest.raises(DataError, match="begun with another source"):
        run(faces, path, "tar")
    (faces / "person 1" / "other.jpg").rename(faces / "person 1" / "0000.jpg")
    assert content(run(faces, path, "tar")) == content(faces)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"job": 1, "stage": 2, "done": "x"}'])
def test_a_journal_that_is_none(faces, tmp_path, text):
    path = begun(faces, tmp_path / "set.tar")
    Path(f"{path}.convert.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        run(faces, path, "tar")


def test_two_processes_at_one_destination(faces, tmp_path):
    with Journal(tmp_path / "set.tar"), pytest.raises(DataError, match="another process"):
        run(faces, tmp_path / "set.tar", "tar")


def test_a_full_disk_is_told_before(faces, tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")(1, 1, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="are free"):
        run(faces, tmp_path / "set.tar", "tar")


def test_a_write_that_went_wrong_is_noticed(faces, tmp_path):
    path = tmp_path / "set.tar"

    def damage(name):
        if name == "indexing":
            data = bytearray(path.read_bytes())
            data[600] ^= 1
            path.write_bytes(data)
        return quiet(name)

    with pytest.raises(DataError, match="does not hold what"):
        convert(open_records(faces), path, ConvertOptions(form="tar"), show=damage)


class _Alike(GroupedRecords):
    """Records of one byte each."""

    index_bytes = 0
    file_name = describe = read_text = str

    def read(self, index):
        return b"1"


def test_memory_of_verifying(tmp_path):
    """Four bytes for the index, eight for each side, and one of their comparison."""
    count = 400_000
    records = _Alike(tmp_path, identity_names=["ann", "bob"], images_per_identity=[1, count - 1])
    with Journal(tmp_path / "set.rec") as journal:
        options = ConvertOptions(form="recordio", threads=1)
        work = module._Conversion(records, tmp_path / "set.rec", options, {}, journal)
        journal.add([module.checksum_of(b"1")] * count)
        journal.save({}, done=count, position=None, stage="verifying")
        tracemalloc.start()
        work._verify(records, module.np.arange(2), quiet("verifying"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 29 * count  # with what is at hand for 65,536 of them


def test_an_image_that_cannot_be_read_stops_it(faces, tmp_path):
    (faces / "person 3" / "0001.jpg").unlink()
    (faces / "person 3" / "0001.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"0001\.jpg: No such file.*--keep"):
        run(faces, tmp_path / "set.rec", "recordio")


def test_records_without_names_are_called_by_their_number(tmp_path):
    people = {str(k): {f"{i}.jpg": face(20 * k + i, size=24) for i in range(6)} for k in range(2)}
    path = write_recordio(tmp_path / "a.rec", people)
    path.with_suffix(".lst").unlink()
    folder = run(path, tmp_path / "faces", "folder")
    assert list(content(folder)["1"]) == [
        "06.jpg",
        "07.jpg",
        "08.jpg",
        "09.jpg",
        "10.jpg",
        "11.jpg",
    ]
    # so a keep-list made of the one fits the other
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, open_records(path), [3, 7, 11])
    kept = [select_kept(open_records(each), keep) for each in (path, folder)]
    images = [[records.read(i) for i in range(len(records))] for records in kept]
    assert images[0] == images[1]
    assert len(images[0]) == 9


def test_command_line(faces, tmp_path, capsys, monkeypatch):
    keep = tmp_path / "keep.txt"
    main(["data", "check", str(faces), "--keep", str(keep)])
    capsys.readouterr()
    assert main(["data", "convert", str(faces), str(tmp_path / "o"), "--to", "recordio",
                 "--keep", str(keep)]) == 0  # fmt: skip
    assert "read again and equal" in capsys.readouterr().out
    kept = content(tmp_path / "o" / "train.rec")
    assert "0008.jpg" not in kept["person 3"]
    for words in (
        ["x.abc"],
        ["x", "--to", "mp3"],
        ["x.tar", "--shuffle", "1"],
        ["x.tar", "--header"],
    ):
        assert main(["data", "convert", str(faces), str(tmp_path / words[0]), *words[1:]]) in (1, 2)
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("form", sorted(SUFFIXES))
def test_labels_that_are_numbers_survive_a_round_trip(tmp_path, form):
    people = {str(k): {"0.jpg": face(k, size=24)} for k in range(12)}
    path = write_recordio(tmp_path / "a.rec", people)
    path.with_suffix(".lst").unlink()
    told = []
    between = tmp_path / f"set{SUFFIXES[form]}"
    options = ConvertOptions(form=form)
    convert(open_records(path), between, options, show=quiet, warn=told.append)
    back = run(between, tmp_path / "back" / "b.rec", "recordio")
    for records in map(open_records, (path, between, back)):
        assert [records.read(i) for i in range(12)] == [face(k, size=24) for k in range(12)]
    assert told == []
    # people who are numbers are found in a keep-list with and without zeros
    keep = tmp_path / "keep.txt"
    keep.write_text(f"{HEADER}\n2\t2\n")
    assert len(select_kept(open_records(between), keep)) == 11


def test_labels_that_cannot_stay_are_told(tmp_path):
    faces = write_folder(tmp_path / "f", {k: {"0.jpg": face(int(k))} for k in ("1", "2", "10")})
    told = []
    convert(
        open_records(faces),
        tmp_path / "list.txt",
        ConvertOptions(form="list"),
        show=quiet,
        warn=told.append,
    )
    assert len(told) == 1
    assert "other labels" in told[0]


def test_numbers_of_records_are_padded_with_a_keep_list_too(tmp_path):
    people = {"a": {f"{i}.jpg": face(i, size=24) for i in range(12)}}
    path = write_recordio(tmp_path / "a.rec", people)
    path.with_suffix(".lst").unlink()
    keep = tmp_path / "keep.txt"
    write_keep_list(keep, open_records(path), [3, 4, 5])
    folder = run(select_kept(open_records(path), keep), tmp_path / "faces", "folder")
    assert list(content(folder)["0"])[:4] == ["00.jpg", "01.jpg", "02.jpg", "06.jpg"]


def test_targets(tmp_path, faces):
    link, elsewhere = tmp_path / "link", tmp_path / "other disk" / "set"
    elsewhere.mkdir(parents=True)
    link.symlink_to(elsewhere)
    assert checked_target(link, [faces]) == elsewhere
    assert checked_target(faces / "a.tar", [faces / "a.rec"]) == faces / "a.tar"
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "neither a file nor a folder"),
        (faces / "out", "lies in"),
        (faces, "is what is read"),
        (tmp_path / "x" / ".." / "faces" / "out.tar", "lies in"),
    ):
        with pytest.raises(DataError, match=words):
            checked_target(path, [tmp_path / "more", faces])


def test_verbs_do_not_write_into_what_they_read(tmp_path, faces, capsys):
    before, inside = files_of(tmp_path), str(faces / "out")
    for words in (
        ["convert", str(faces), inside],
        ["merge", str(faces), str(tmp_path), "--out", inside],
        ["align", str(faces), inside, "--landmarks", "x.csv"],
    ):
        assert main(["data", *words]) == 1
        assert "lies in" in capsys.readouterr().err
    assert files_of(tmp_path) == before


def test_a_link_to_an_empty_folder(tmp_path, faces):
    link, elsewhere = tmp_path / "link", tmp_path / "other disk"
    elsewhere.mkdir()
    link.symlink_to(elsewhere)
    assert main(["data", "convert", str(faces), str(link)]) == 0
    assert content(elsewhere) == content(faces)
    assert link.is_symlink()


def test_help_names_every_format(capsys):
    assert main(["data", "convert", "--help"]) == 0
    words = set(capsys.readouterr().out.replace(",", " ").replace(". ", " ").split())
    for form, about in FORMATS.items():
        assert words & {form, f"{form}."}
        assert not about.suffixes or words & {about.suffixes[0]}


@pytest.mark.parametrize(
    "view", [lambda r: MergedRecords([r, r], same=[]), lambda r: KeptRecords(r, dropped=NONE)]
)
def test_a_source_of_a_view_that_changed_is_another_source(tmp_path, view):
    path = write_recordio(tmp_path / "a.rec", {"Ann": {"0.jpg": b"a", "1.jpg": b"b"}})
    before = fingerprint(view(open_records(path)))
    assert fingerprint(view(open_records(path))) == before
    os.utime(path, ns=(1, 1))
    assert fingerprint(view(open_records(path))) != before


def test_files_that_are_written_beside_it_are_not_overwritten_either(faces, tmp_path, capsys):
    """A list that is converted to `faces.rec` may be called `faces.lst`, as its own list is."""
    listed = tmp_path / "faces.lst"
    lines = [f"faces/{path.parent.name}/{path.name}\t{path.parent.name}"
             for path in sorted(faces.rglob("*.*"))]  # fmt: skip
    listed.write_text("\n".join(lines) + "\n")
    before = files_of(tmp_path)
    assert main(["data", "convert", str(listed), str(tmp_path / "faces.rec")]) == 1
    assert "faces.lst is there already" in capsys.readouterr().err
    assert main(["data", "convert", str(listed), str(tmp_path / "faces.txt")]) == 1
    assert "faces is there already" in capsys.readouterr().err
    assert files_of(tmp_path) == before
    (tmp_path / "other.idx").write_text("somebody's")
    with pytest.raises(DataError, match=r"other\.idx is there already"):
        run(faces, tmp_path / "other.rec", "recordio")


def test_a_refused_conversion_leaves_nothing(faces, tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")(1, 1, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="are free"):
        run(faces, tmp_path / "set.tar", "tar")
    assert files_of(tmp_path) == before
    monkeypatch.undo()
    with pytest.raises(DataError, match="cannot be the name of a file"):
        run(faces, tmp_path / "#set.txt", "list")  # each of its lines would be a comment
    assert files_of(tmp_path) == before


def test_more_than_header_records_can_hold_is_told_before(faces, tmp_path, monkeypatch):
    (faces / "person 3" / "0008.jpg").write_bytes(b"x")
    monkeypatch.setattr(recordio_writer, "LARGEST_LABEL", 13 + 1 + 4)
    run(faces, tmp_path / "fits.rec", "recordio", headers=True)
    monkeypatch.setattr(recordio_writer, "LARGEST_LABEL", 13 + 4)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="write it without headers"):
        run(faces, tmp_path / "set.rec", "recordio", headers=True)
    assert files_of(tmp_path) == before
    run(faces, tmp_path / "set.rec", "recordio")


@pytest.mark.parametrize("form", sorted(SUFFIXES))
def test_what_was_begun_and_is_gone_is_not_gone_on_with(faces, tmp_path, monkeypatch, form):
    (faces / "person 3" / "0008.jpg").write_bytes(b"x")
    monkeypatch.setattr(module, "chunks_of", lambda *a, **k: chunks_of(*a, **{**k, "size": 2}))
    path = tmp_path / f"set{SUFFIXES[form]}"
    options = {"commit_records": 4, "threads": 1, "verify": False}
    for event in range(40, 400, 20):  # until something is safe
        process = multiprocessing.get_context("fork").Process(
            target=killed_at, args=(event, faces, path, form, options)
        )
        process.start()
        process.join()
        assert process.exitcode == 9
        if json.loads(Path(f"{path}.convert.json").read_text())["done"]:
            break
    for draft in tmp_path.glob("*.part"):
        shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
    with pytest.raises(DataError, match="holds less than was written into it; remove"):
        run(faces, path, form, **options)
    assert not path.exists()

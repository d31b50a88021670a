"""LMDB as FFC, Caffe, ImageFolder and CRNN write it, by ours and by the library; damaged files."""

import os
import pickle
import random
import struct

import lmdb
import numpy as np
import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError
from manyface.data.records import open_records
from manyface.data.records.btree import Tree
from manyface.data.records.datum import parse_datum, write_datum
from manyface.data.records.files import PlainFile
from manyface.data.records.lmdb import LmdbWriter
from manyface.data.records.store import Faults

JPEG = b"\xff\xd8"


def write_lmdb(path, pairs, **options):
    with (
        lmdb.open(str(path), map_size=1 << 26, **options) as database,
        database.begin(write=True) as transaction,
    ):
        for key, value in pairs:
            transaction.put(key, value)
    return path


def make(path, people=stores.PEOPLE):
    return LmdbWriter(path, identity_names=people)


def varint(number):
    data = b""
    while number >= 128:
        data, number = data + bytes([number & 127 | 128]), number >> 7
    return data + bytes([number])


def ffc_datum(image):
    """As tools/make_lmdb.py of FFC serialises: its only field, 1."""
    return b"\x0a" + varint(len(image)) + image


def test_written_and_read(tmp_path):
    writer = make(tmp_path / "faces.lmdb")
    stores.write(writer, stores.faces())
    writer.finish()
    records = open_records(tmp_path / "faces.lmdb")
    assert stores.content(records) == stores.expected(stores.faces())
    assert records.describe(0).endswith(" (000.jpg)")
    stores.check_concurrent(records, methods=("fork", "spawn"))


def test_written_anew_after_a_stop_at_every_commit(tmp_path):
    stores.check_resume(make, tmp_path / "faces.lmdb")


def test_written_for_the_library_and_for_ffc(tmp_path):
    """The list of keys as FFC's loader splits it, Caffe's Datum byte by byte."""
    writer = make(tmp_path / "a")
    stores.write(writer, [(JPEG + b"x" * 200, 2, "1.jpg"), (JPEG, 0, "2.jpg")])
    writer.finish()
    assert (tmp_path / "a" / "a_kv.txt").read_text() == "0000000000 2\n0000000001 0\n"
    with (
        lmdb.open(str(tmp_path / "a"), readonly=True, lock=False) as database,
        database.begin() as transaction,
    ):
        assert transaction.get(b"0000000000") == (
            b"\x22\xca\x01" + JPEG + b"x" * 200 + b"\x28\x02\x38\x01"
        )
        assert transaction.get(b"0000000001") == b"\x22\x02" + JPEG + b"\x28\x00\x38\x01"


def test_more_room_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(LmdbWriter, "_PENDING_BYTES", 1 << 16)
    writer = make(tmp_path / "a")
    records = [(JPEG + bytes(50_000), i % 3, f"{i}.jpg") for i in range(40)]
    stores.write(writer, records)
    writer.finish()
    assert stores.content(open_records(tmp_path / "a")) == stores.expected(records)


@pytest.mark.parametrize("beside", [True, False])
def test_as_ffc_writes_it(tmp_path, beside):
    images = [JPEG + bytes([i]) * (3000 * i) for i in range(6)]
    keys = [f"train_{i // 2}_{i % 2}" for i in range(6)]
    write_lmdb(
        tmp_path / "train", [(k.encode(), ffc_datum(i)) for k, i in zip(keys, images, strict=True)]
    )
    where = tmp_path if beside else tmp_path / "train"
    (where / "train_kv.txt").write_text("".join(f"{k} {i // 2}\n" for i, k in enumerate(keys)))
    records = open_records(tmp_path / "train")
    assert list(records.identity_names) == ["0", "1", "2"]
    assert stores.read_all(records) == images
    assert [records.file_name(i) for i in range(6)] == keys


def test_labels_of_datum_without_a_list_of_keys(tmp_path):
    caffe = b"\x08\x03\x10\x70\x18\x70" + write_datum(JPEG + b"a", 300)  # channels, height, width
    path = write_lmdb(tmp_path / "a.lmdb", [(b"k1", caffe)], subdir=False)
    records = open_records(path)
    assert list(records.identity_names) == ["300"]
    assert records.read(0) == JPEG + b"a"
    assert records.describe(0).endswith("(k1)")


def test_bare_pixels_negative_labels_and_rubbish_are_left_out(tmp_path):
    pairs = [
        (b"good", write_datum(JPEG, 1)),
        (b"negative", b"\x22\x02\xff\xd8\x28" + b"\xff" * 9 + b"\x01"),
        (b"pixels", b"\x22\x03abc\x28\x01"),
        (b"rubbish", b"hello"),
        (b"short", b"\x22\x7fabc"),
        (b"nobody", JPEG),
    ]
    warnings = []
    records = open_records(write_lmdb(tmp_path / "a", pairs), warn=warnings.append)
    assert len(records) == 1
    assert records.index.num_faults == 5
    told = " ".join(records.index.faults)
    for what in ("its label, got -1", "bare pixels", "more bytes than it has", "its key no folder"):
        assert what in told


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_as_image_folder_scripts_pickle_it(tmp_path, protocol):
    images = [JPEG + bytes([i, 200]) * 50 for i in range(5)]
    pairs = [(str(i).encode(), pickle.dumps((image, i % 2), protocol))
             for i, image in enumerate(images)]  # fmt: skip
    array = pickle.dumps((np.frombuffer(JPEG + b"x", np.uint8), 1), protocol)
    extra = [(b"__keys__", pickle.dumps([k for k, _ in pairs])), (b"__len__", pickle.dumps(5))]
    records = open_records(write_lmdb(tmp_path / "a", [*pairs, (b"5", array), *extra]))
    assert records.first_images.tolist() == [0, 3, 6]
    assert stores.read_all(records) == images[::2] + images[1::2] + [JPEG + b"x"]


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    pairs = [(b"0", pickle.dumps((Evil(), 1)))]
    with pytest.raises(DataError, match="no image that could be read"):
        open_records(write_lmdb(tmp_path / "a", pairs))
    assert not (tmp_path / "written").exists()


def test_as_crnn_scripts_number_it(tmp_path):
    pairs = [(b"num-samples", b"5")]
    pairs += [(b"image-%09d" % i, JPEG + bytes([i])) for i in (1, 2, 3, 4, 5)]
    labels = {1: b"Zoe", 2: b"Ann", 4: b"Zoe", 5: b" "}
    pairs += [(b"label-%09d" % i, name) for i, name in labels.items()]
    records = open_records(write_lmdb(tmp_path / "a", pairs), warn=lambda _: None)
    assert list(records.identity_names) == ["Ann", "Zoe"]
    assert stores.read_all(records) == [JPEG + bytes([i]) for i in (2, 1, 4)]
    no_label, blank = records.index.faults
    assert "b'image-000000003' has no label" in no_label
    assert "b'label-000000005': expected a label" in blank


def test_plain_images_by_path(tmp_path):
    pairs = [(b"Zoe/2.png", b"\x89PNG\r\n\x1a\n2"), (b"Ann/1.jpg", JPEG), (b"Zoe/1.jpg", JPEG)]
    records = open_records(write_lmdb(tmp_path / "a", pairs))
    assert list(records.identity_names) == ["Ann", "Zoe"]
    assert records.file_name(2) == "2.png"


def test_list_of_keys_that_cannot_be_read(tmp_path):
    write_lmdb(tmp_path / "a", [(b"k", ffc_datum(JPEG))])
    (tmp_path / "a" / "a_kv.txt").write_text("k 1\nk\n")
    with pytest.raises(DataError, match=r"a_kv.txt, line 2: expected key, blank, label"):
        open_records(tmp_path / "a")


def test_target_that_is_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_text("")
    with pytest.raises(DataError, match="there already"):
        make(tmp_path / "a")


def test_foreign_versions_are_refused(tmp_path):
    path = write_lmdb(tmp_path / "a.mdb", [(b"k", JPEG)], subdir=False)
    raw = bytearray(path.read_bytes())
    raw[20] = 9
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"no LMDB file that can be read \(data version 9\)"):
        open_records(path)
    path.write_bytes(raw[:24] + raw[16:])
    with pytest.raises(DataError, match=r"LMDB 0\.9"):
        open_records(path)


@pytest.mark.parametrize("count", [0, 1, 50, 5000])
def test_walk_is_what_the_library_sees(tmp_path, count):
    rng = random.Random(count)
    pairs = {b"%x/%d" % (rng.getrandbits(64), i): rng.randbytes(rng.choice((0, 9, 900, 5000)))
             for i in range(count)}  # fmt: skip
    path = write_lmdb(tmp_path / "a.mdb", pairs.items(), subdir=False)
    with lmdb.open(str(path), subdir=False, map_size=1 << 27) as database:
        for part in (list(pairs)[::3], list(pairs)[1::7]):  # with free pages, overwritten values
            with database.begin(write=True) as transaction:
                for key in part:
                    pairs[key] = pairs[key][:700] * 2
                    transaction.put(key, pairs[key])
    file, faults = PlainFile(path), Faults()
    tree = Tree(file)
    found = {e.key: file.read(e.offset, e.size) for e in tree.walk(faults)}
    assert list(found) == sorted(pairs)
    assert found == pairs
    assert tree.num_entries == len(pairs)
    assert not faults.count
    for key in [*list(pairs)[:20], b"zzz", b""]:
        assert tree.get(key) == pairs.get(key)
        assert [e.key for e in tree.walk(faults, start=key)] == [k for k in found if k >= key]


def damaged(raw, rng):
    """One of several ways to damage a file."""
    data = bytearray(raw)
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    for _ in range(rng.choice((1, 20))):
        if kind == 1:  # heads of pages
            at = rng.randrange(len(data) // 4096) * 4096 + rng.randrange(64)
        else:
            at = rng.randrange(len(data))
        data[at] = rng.choice((0, 255, data[at] ^ 1 << rng.randrange(8)))
    if kind == 3:  # a number somewhere
        struct.pack_into(
            "<Q", data, rng.randrange(len(data) - 8), rng.choice((1, 2**40, 2**64 - 1))
        )
    return data


def fuzz(tmp_path, cases):
    pairs = [(b"%04d" % i, write_datum(JPEG + bytes(i * 37 % 6000), i // 3)) for i in range(300)]
    pairs += [(b"p%d" % i, pickle.dumps((JPEG + bytes(i), i))) for i in range(100)]
    raw = write_lmdb(tmp_path / "a.mdb", pairs, subdir=False).read_bytes()
    for seed in range(cases):
        path = tmp_path / "b.mdb"
        path.write_bytes(damaged(raw, random.Random(seed)))
        stores.read_damaged(path)


def test_damaged_files(tmp_path):
    fuzz(tmp_path, 60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_damaged_files_for_long(tmp_path):
    fuzz(tmp_path, round(50_000 * float(os.environ.get("FUZZ_SHARE", "1"))))


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.builds(lambda d, n: write_datum(d, n), st.binary(max_size=50),
                                           st.integers(0, 2**31)))  # fmt: skip
def test_any_bytes_as_datum(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("datum") / "d"
    path.write_bytes(data)
    try:
        datum = parse_datum(PlainFile(path), 0, len(data))
    except ValueError:
        return
    assert 0 <= datum.offset <= datum.offset + datum.size <= len(data)


def test_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, 500)


@pytest.mark.slow
def test_all_of_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, None)


def test_one_key_with_two_labels(tmp_path):
    write_lmdb(tmp_path / "a", [(b"k", ffc_datum(JPEG)), (b"l", ffc_datum(JPEG))])
    (tmp_path / "a" / "a_kv.txt").write_text("k 1\nl 2\nk 1\n")
    assert len(open_records(tmp_path / "a")) == 2
    (tmp_path / "a" / "a_kv.txt").write_text("k 1\nl 2\nk 3\n")
    with pytest.raises(DataError, match=r"a_kv.txt gives 1 keys two labels \(first: 1 in entry 1"):
        open_records(tmp_path / "a")


@pytest.mark.parametrize(("label", "people"), [(3, ["Ann", "Bob"]), (2, ["2", "3"])])
def test_names_come_only_from_a_list_that_fits(tmp_path, label, people, monkeypatch):
    monkeypatch.setattr("manyface.data.records.lmdb._CHUNK", 1)
    pairs = [(b"00", write_datum(JPEG, 2)), (b"01", write_datum(JPEG, 3))]
    path = write_lmdb(tmp_path / "a", pairs)
    lines = ["0\t2\tAnn/x.jpg\n", f"1\t{label}\t{'Bob' if label == 3 else 'Ann'}/y.jpg\n"]
    (path / "a.lst").write_text("".join(lines))
    told = []
    records = open_records(path, warn=told.append)
    assert list(records.identity_names) == people
    names = ["x.jpg", "y.jpg"] if label == 3 else ["00", "01"]
    assert [records.file_name(i) for i in range(2)] == names
    assert len(told) == (label == 2)


def test_what_the_library_cannot_write_is_an_error_of_the_system(tmp_path, monkeypatch):
    """So it says of a full disk: lmdb.Error: mdb_txn_commit: Input/output error."""
    writer = make(tmp_path / "a")
    stores.write(writer, stores.faces())
    with monkeypatch.context() as patched:
        patched.setattr(writer, "_database", FullDisk())
        with pytest.raises(OSError, match="Input/output error; the disk may be full") as caught:
            writer.commit()
    writer.close()
    assert caught.value.filename == str(tmp_path / "a.part")


class FullDisk:
    def begin(self, *, write):
        raise lmdb.Error("mdb_txn_commit: Input/output error")

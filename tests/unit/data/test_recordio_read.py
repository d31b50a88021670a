"""RecordIO files as others wrote them: with and without index, in parts, damaged, both flavours."""

import shutil
import struct

import numpy as np
import pytest
import stores

from manyface.base.errors import DataError
from manyface.data.decode import decode_image
from manyface.data.records import open_records
from manyface.data.records.recordio_frames import HEADER, MAGIC_BYTES, frame
from manyface.data.records.recordio_writer import RecordIOWriter


def pack(label, image, *, key=0):
    """A payload: `label` a number, or several."""
    if isinstance(label, (int, float)):
        return HEADER.pack(0, label, key, 0) + image
    return HEADER.pack(len(label), 0, key, 0) + struct.pack(f"<{len(label)}f", *label) + image


def write_rec(folder, payloads, *, index=True, name="train"):
    folder.mkdir(exist_ok=True)
    data, lines = b"", []
    for key, payload in enumerate(payloads):
        lines.append(f"{key}\t{len(data)}\n")
        data += frame(payload)
    (folder / f"{name}.rec").write_bytes(data)
    if index:
        (folder / f"{name}.idx").write_text("".join(lines))
    return folder / f"{name}.rec"


def content(records):
    starts = records.first_images
    return {
        name: [records.read(i) for i in range(starts[p], starts[p + 1])]
        for p, name in enumerate(records.identity_names)
    }


@pytest.fixture
def samples(lfw_tar, tmp_path):
    source = lfw_tar.parent / "format-samples"
    for folder in source.iterdir():
        (tmp_path / folder.name).mkdir()
        for file in folder.iterdir():
            shutil.copyfile(file, tmp_path / folder.name / file.name)
    return tmp_path


@pytest.mark.parametrize("given", ["", "train.rec", "train.idx"])
def test_adaface_sample(samples, given):
    records = open_records(samples / "adaface-popkorn" / given)
    assert list(records.identity_names) == ["man", "woman"]
    assert records.first_images.tolist() == [0, 4, 8]
    assert sorted(records.file_name(i) for i in range(4, 8)) == [
        f"woman_{i}.jpg" for i in (1, 2, 3, 4)
    ]
    for i in range(8):
        assert decode_image(records.read(i), out=np.empty((112, 112, 3), np.uint8)) is None


def test_validation_sample_with_shuffled_keys(samples):
    records = open_records(samples / "faceid-processing")
    lines = (samples / "faceid-processing" / "validation.lst").read_text().splitlines()
    expected = {tuple(line.split("\t")[2].split("/")) for line in lines}
    people = np.repeat(records.identity_names, np.diff(records.first_images))
    assert {(p, records.file_name(i)) for i, p in enumerate(people)} == expected
    assert (len(records), len(records.identity_names)) == (229, 25)


@pytest.mark.parametrize("index", [True, False])
def test_labels_alone_without_a_list(samples, index):
    folder = samples / "faceid-processing"
    (folder / "validation.lst").unlink()
    if not index:
        (folder / "validation.idx").unlink()
    records = open_records(folder)
    assert list(records.identity_names) == [str(i) for i in range(25)]
    assert len(records) == 229


@pytest.mark.parametrize("index", [True, False])
def test_records_in_parts_are_put_together(tmp_path, index):
    images = [MAGIC_BYTES, b"abcd" + MAGIC_BYTES * 3, b"ab" + MAGIC_BYTES, MAGIC_BYTES + b"x", b"q"]
    path = write_rec(
        tmp_path / "a", [pack(i, image) for i, image in enumerate(images)], index=index
    )
    assert content(open_records(path)) == {str(i): [image] for i, image in enumerate(images)}


def test_a_label_that_looks_like_the_magic_number(tmp_path):
    label = struct.unpack("<f", MAGIC_BYTES)[0]
    assert label < 0  # no identity, but the record must not shift the others
    path = write_rec(tmp_path / "a", [pack(label, b"x"), pack(1, b"y")])
    told = []
    assert content(open_records(path, warn=told.append)) == {"1": [b"y"]}
    assert "label -" in told[0]


@pytest.mark.parametrize("index", [True, False])
def test_insightface_header_and_identity_records(tmp_path, index):
    photos = [pack(0.0, b"p1"), pack([0.0, 9.0], b"p2"), pack(1.0, b"p3")]
    identities = [pack([1.0, 3.0], b""), pack([3.0, 4.0], b"")]
    path = write_rec(tmp_path / "a", [pack([4.0, 6.0], b""), *photos, *identities], index=index)
    assert content(open_records(path)) == {"0": [b"p1", b"p2"], "1": [b"p3"]}


def test_a_photo_without_bytes_stays_a_record(tmp_path):
    path = write_rec(tmp_path / "a", [pack(0, b""), pack(0, b"x")])
    assert content(open_records(path)) == {"0": [b"", b"x"]}


@pytest.mark.parametrize("label", [0.5, -1.0, float("nan"), float("inf")])
def test_labels_that_are_no_identity_are_left_out(tmp_path, label):
    told = []
    path = write_rec(tmp_path / "a", [pack(label, b"x"), pack(3, b"y")])
    assert content(open_records(path, warn=told.append)) == {"3": [b"y"]}
    assert "1 records are left out" in told[0]
    assert "no identity" in told[0]


def test_an_index_of_other_data_is_not_used(tmp_path):
    path = write_rec(tmp_path / "a", [pack(i, b"image") for i in range(5)])
    path.with_suffix(".idx").write_text("0\t0\n1\t12\n2\t88888\n")
    told = []
    records = open_records(path, warn=told.append)
    assert content(records) == {str(i): [b"image"] for i in range(5)}
    assert len(told) == 1  # and no record is left out
    assert "train.idx does not fit train.rec" in told[0]
    assert records.index.num_faults == 0


@pytest.mark.parametrize("index", ["no numbers", "1\t2\t3\n", "", "-1\t-4\n", "9" * 40 + "\t0\n"])
def test_an_index_that_is_none(tmp_path, index):
    path = write_rec(tmp_path / "a", [pack(i, b"image") for i in range(5)])
    path.with_suffix(".idx").write_text(index)
    assert len(open_records(path, warn=lambda text: None)) == 5


@pytest.mark.parametrize("index", [True, False])
def test_cut_off_and_damaged_in_the_middle(tmp_path, index):
    path = write_rec(tmp_path / "a", [pack(i, b"%04d" % i) for i in range(20)], index=index)
    raw = bytearray(path.read_bytes()[:-3])
    raw[10 * 36 : 10 * 36 + 4] = b"\0\0\0\0"
    path.write_bytes(raw)
    told = []
    records = open_records(path, warn=told.append)
    assert sorted(content(records)) == sorted(str(i) for i in range(19) if i != 10)
    assert "left out" in told[-1]


def test_nothing_but_rubbish_after_the_magic(tmp_path):
    (tmp_path / "a.rec").write_bytes(MAGIC_BYTES + b"\xff" * 400)
    with pytest.raises(DataError, match="no image that could be read"):
        open_records(tmp_path / "a.rec")


def test_several_files_and_none_preferred(tmp_path):
    for name in ("one", "two"):
        write_rec(tmp_path / "a", [pack(0, b"x")], name=name)
    with pytest.raises(DataError, match=r"has 2 \.rec files"):
        open_records(tmp_path / "a")
    write_rec(tmp_path / "a", [pack(0, b"train")])
    assert content(open_records(tmp_path / "a")) == {"0": [b"train"]}


def test_more_people_than_float32_can_number(tmp_path):
    with pytest.raises(DataError, match="exact up to 16777216"):
        RecordIOWriter(tmp_path / "a.rec", identity_names=range(2**24 + 2))


def test_written_and_read(tmp_path):
    writer = RecordIOWriter(tmp_path / "a.rec", identity_names=["Ann", "José"])
    for person, name in [(1, "x.jpg"), (0, "y.jpg"), (1, "z.jpg")]:
        writer.add(name.encode(), person=person, name=name)
    assert not list(tmp_path.glob("*.rec"))
    writer.finish()
    records = open_records(tmp_path / "a.rec")
    assert content(records) == {"Ann": [b"y.jpg"], "José": [b"x.jpg", b"z.jpg"]}
    assert (tmp_path / "property").read_text() == "2,112,112\n3\n"


@pytest.mark.parametrize("last", [b"image", b"abcd" + MAGIC_BYTES * 2])
def test_an_index_that_ends_before_the_records(tmp_path, last):
    images = [b"image"] * 4 + [last]
    path = write_rec(tmp_path / "a", [pack(i, image) for i, image in enumerate(images)])
    told, lines = [], path.with_suffix(".idx").read_text().splitlines(keepends=True)
    assert len(open_records(path, warn=told.append)) == 5
    assert not told
    path.with_suffix(".idx").write_text("".join(lines[:-1]))
    assert len(open_records(path, warn=told.append)) == 5
    assert "train.idx ends before train.rec" in told[0]


def test_padding_behind_the_last_record(tmp_path):
    path = write_rec(tmp_path / "a", [pack(i, b"image") for i in range(3)])
    path.write_bytes(path.read_bytes() + bytes(4))
    told = []
    assert len(open_records(path, warn=told.append)) == 3
    assert not told


LINES = ["0\t7\tAnn/a.jpg\n", "1\t7\tAnn/b.jpg\n", "2\t8\tBob/c.jpg\n"]


@pytest.mark.parametrize("other", [None, "2\t7\tAnn/c.jpg\n", "3\t8\tBob/c.jpg\n", ""])
def test_names_come_only_from_a_list_that_fits_every_record(tmp_path, other, monkeypatch):
    monkeypatch.setattr("manyface.data.records.recordio._CHUNK", 2)
    path = write_rec(tmp_path / "a", [pack(label, b"x") for label in (7, 7, 8)])
    lines = LINES if other is None else [*LINES[:2], other]
    path.with_suffix(".lst").write_text("".join(lines))
    told = []
    records = open_records(path, warn=told.append)
    if other is None:
        assert list(records.identity_names) == ["Ann", "Bob"]
        assert [records.file_name(i) for i in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
        assert not told
    else:
        assert list(records.identity_names) == ["7", "8"]
        assert [records.file_name(i) for i in range(3)] == ["0", "1", "2"]
        assert "train.lst does not name every record" in told[0]
        assert len(told) == 1


def test_an_image_too_large_for_a_part_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("manyface.data.records.recordio_frames.LENGTH_BITS", 10)
    writer = RecordIOWriter(tmp_path / "a.rec", identity_names=["Ann"])
    with pytest.raises(DataError, match=r"a\.rec: big\.jpg of 'Ann': a part of 2024 bytes"):
        writer.add(bytes(2000), person=0, name="big.jpg")
    writer.close()


def test_reads_ahead(tmp_path, monkeypatch):
    writer = RecordIOWriter(tmp_path / "train.rec", identity_names=stores.PEOPLE)
    stores.write(writer, stores.faces())
    writer.finish()
    stores.check_reads_ahead(monkeypatch, open_records(tmp_path / "train.rec"))
    writer = RecordIOWriter(tmp_path / "split.rec", identity_names=stores.PEOPLE)
    stores.write(writer, [(b"\xff\xd8\0\0" + MAGIC_BYTES * 5, 0, "a.jpg"), *stores.faces()])
    writer.finish()
    records = open_records(tmp_path / "split.rec")
    records.will_read(np.arange(len(records)))  # of a record in parts at least its place is known
    assert MAGIC_BYTES * 5 in records.read(0)

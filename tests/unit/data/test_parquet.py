"""Parquet as Hugging Face keeps image sets, written by ours, pyarrow and `datasets`; damaged."""

import io
import json
import os
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stores
from pictures import encoded, smooth_pixels

from manyface.base.errors import DataError
from manyface.data.records import open_records
from manyface.data.records.parquet_writer import ParquetWriter

JPEG = b"\xff\xd8"


def make(path, people=stores.PEOPLE, **options):
    return ParquetWriter(path, identity_names=people, **options)


def images(*contents, paths=None):
    return [
        {"bytes": c, "path": p}
        for c, p in zip(contents, paths or map(str, range(len(contents))), strict=True)
    ]


def write_table(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    features = options.pop("features", None)
    table = pa.table(columns)
    if features is not None:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, **options)
    return path


def test_written_and_read(tmp_path):
    writer = make(tmp_path / "faces", max_bytes=30_000)
    stores.write(writer, stores.faces())
    writer.finish()
    assert len(list((tmp_path / "faces").iterdir())) > 2
    records = open_records(tmp_path / "faces")
    assert stores.content(records) == stores.expected(stores.faces())
    assert "row group 0, row 0 (Ann/" in records.describe(0)
    stores.check_concurrent(records)


@pytest.mark.parametrize("max_bytes", [10_000, 1 << 20])
def test_written_anew_after_a_stop_at_every_commit(tmp_path, max_bytes):
    stores.check_resume(lambda path: make(path, max_bytes=max_bytes), tmp_path / "faces")
    assert all(file.suffix == ".parquet" for file in (tmp_path / "faces").iterdir())


def test_finished_anew_after_a_stop_before_the_last_step(tmp_path, monkeypatch):
    writer = make(tmp_path / "a")
    stores.write(writer, stores.faces())
    position = writer.commit()
    with monkeypatch.context() as patched:
        patched.setattr(writer, "path", tmp_path / "no" / "such" / "folder")
        with pytest.raises(FileNotFoundError):
            writer.finish()
    writer = make(tmp_path / "a")
    writer.resume(position)
    writer.finish()
    assert stores.content(open_records(tmp_path / "a")) == stores.expected(stores.faces())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_datasets_reads_it(tmp_path, monkeypatch):
    for name in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    pictures = [encoded(smooth_pixels(i, size=24)) for i in range(200)]
    writer = make(tmp_path / "faces", max_bytes=100_000)
    stores.write(writer, [(p, i % 3, f"{i}.jpg") for i, p in enumerate(pictures)])
    writer.finish()
    files = str(tmp_path / "faces" / "*.parquet")
    found = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found.features["label"].names == stores.PEOPLE
    assert found[7]["image"].size == (24, 24)
    assert found[7]["label"] == 1
    raw = found.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in raw] == pictures


def test_as_hugging_face_writes_it(tmp_path):
    """Splits, names of classes, dictionary pages and compression; only "train" is read."""
    features = {"label": {"names": ["Zoe", "Ann"], "_type": "ClassLabel"}}
    for name, contents in (("train-00000-of-00002", [b"1", b"2", b"3"]), ("test-0", [b"4"]),
                           ("train-00001-of-00002", [b"5", b"6", b"7"])):  # fmt: skip
        columns = {"image": images(*contents), "label": [i % 2 for i in range(len(contents))]}
        write_table(tmp_path / "data" / f"{name}.parquet", columns, features=features,
                    compression="snappy", row_group_size=2)  # fmt: skip
    records = open_records(tmp_path)
    assert stores.content(records) == {
        "Zoe": [("0", b"1"), ("0", b"5"), ("2", b"3"), ("2", b"7")],
        "Ann": [("1", b"2"), ("1", b"6")],
    }


def test_bytes_and_text_labels(tmp_path):
    columns = {"cls": pa.array(["b", "a", None, "b"]).dictionary_encode(),
               "jpg": pa.array([b"1", b"2", b"3", b"4"], pa.large_binary())}  # fmt: skip
    records = open_records(write_table(tmp_path / "a.parquet", columns), warn=lambda _: None)
    assert list(records.identity_names) == ["a", "b"]
    assert stores.read_all(records) == [b"2", b"1", b"4"]
    assert records.index.faults == ["a.parquet, row group 0, row 2: no label"]


def test_labels_that_are_none_and_rows_without_an_image(tmp_path):
    rows = [*images(b"1", b"2", b"3", b"4"), None, {"bytes": None, "path": "x.jpg"}]
    columns = {"image": rows, "identity": [3.0, -1, None, 0.5, 3, 3]}
    records = open_records(write_table(tmp_path / "a.parquet", columns), warn=lambda _: None)
    assert list(records.identity_names) == ["3"]
    assert records.index.num_faults == 3
    for record in (1, 2):
        with pytest.raises(OSError, match="holds no image"):
            records.read(record)


def test_people_from_folders(tmp_path):
    columns = {"image": images(b"1", b"2", b"3", paths=["x/Zoe/1.jpg", "x/Ann/2.jpg", "3.jpg"])}
    path = write_table(tmp_path / "a.parquet", columns)
    records = open_records(path, warn=lambda _: None)
    assert list(records.identity_names) == ["Ann", "Zoe"]
    assert records.file_name(0) == "2.jpg"


@pytest.mark.parametrize("paths, names", [(["Ann/1", "Bob/1"], ["Ann", "Bob"]),
                                          (["Ann/1", "Ann/2"], ["4", "5"]),
                                          (["Ann/1", "x"], ["4", "5"])])  # fmt: skip
def test_names_of_numbers_from_folders_where_each_has_its_own(tmp_path, paths, names):
    columns = {"image": images(b"1", b"2", paths=paths), "label": [4, 5]}
    records = open_records(write_table(tmp_path / "a.parquet", columns))
    assert list(records.identity_names) == names


def test_columns_that_are_missing(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"x": [1], "label": [1]})
    with pytest.raises(DataError, match=r"no column of images.*it has x, label"):
        open_records(path)
    path = write_table(tmp_path / "b.parquet", {"jpg": [b"1"], "x": [1]})
    with pytest.raises(DataError, match="no column of labels"):
        open_records(path)


def test_without_pyarrow(tmp_path, monkeypatch):
    path = write_table(tmp_path / "a.parquet", {"jpg": [b"1"], "label": [1]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install '.\[parquet\]'"):
        open_records(path)


def test_one_damaged_file_of_several(tmp_path):
    for i in range(3):
        write_table(tmp_path / f"{i}.parquet", {"jpg": [b"%d" % i], "label": [1]})
    (tmp_path / "1.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-20])
    records = open_records(tmp_path, warn=lambda _: None)
    assert stores.read_all(records) == [b"0", b"2"]
    assert "1.parquet cannot be read" in records.index.faults[0]


def test_row_groups_make_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr("manyface.data.records.parquet._CACHE_BYTES", 100)
    monkeypatch.setattr("manyface.data.records.parquet._MOST_OPEN", 1)
    for i in range(3):
        columns = {"jpg": [b"%d" % j * 40 for j in range(9)], "label": [i] * 9}
        write_table(tmp_path / f"{i}.parquet", columns, row_group_size=2)
    records = open_records(tmp_path)
    for record in random.Random(0).sample(range(27), 27) * 3:
        assert records.read(record) == b"%d" % (record % 9) * 40
    assert records.store._opened._bytes <= 100


def counted(thing, name, monkeypatch):
    """The calls of a method, from now on."""
    calls, method = [], getattr(thing, name)
    monkeypatch.setattr(thing, name, lambda *words: calls.append(words) or method(*words))
    return calls


def test_large_row_groups_are_read_slice_by_slice_and_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("manyface.data.records.parquet._CACHE_BYTES", 5_000)
    monkeypatch.setattr("manyface.data.records.parquet._SLICE_BYTES", 1_200)
    pictures = [bytes([i]) * 100 for i in range(200)]
    for name, column in (("bytes", pictures), ("struct", images(*pictures))):
        path = write_table(tmp_path / f"{name}.parquet", {"image": column, "label": [0] * 200})
        said = []
        records = open_records(path, warn=said.append)
        assert "row groups of up to 0 MiB" in said[0]
        assert f"manyface data convert {path} NEW.parquet" in said[0]
        reads = counted(records.store, "_read_rows", monkeypatch)
        assert stores.read_all(records) == pictures
        assert 10 < len(reads) < 30, "slices of about ten images"
        for record in random.Random(0).sample(range(200), 50):
            assert records.read(record) == pictures[record]
        assert records.store._opened._bytes <= 2_000
        assert open_records(path, warn=said.append)
        assert said[1] == said[0], "at each opening"


def test_small_row_groups_are_not_worth_a_word(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"jpg": [b"1"], "label": [1]})
    open_records(path, warn=pytest.fail)


def damaged(raw, rng):
    data = bytearray(raw)
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    footer = struct.unpack("<I", data[-8:-4])[0] + 8
    start = 0 if kind == 1 else len(data) - footer
    for _ in range(rng.choice((1, 3, 20))):
        at = rng.randrange(start, len(data))
        data[at] = rng.choice((0, 255, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
    return data


def fuzz(tmp_path, cases, *, first=0):
    rows = images(*[JPEG + bytes(i * 13 % 500) for i in range(60)])
    columns = {"image": rows, "label": [i // 3 for i in range(60)]}
    sources = []
    for compression in ("none", "snappy", "zstd"):
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer, row_group_size=16, compression=compression)
        sources.append(buffer.getvalue())
    for seed in range(first, cases):
        rng = random.Random(seed)
        path = tmp_path / "a.parquet"
        path.write_bytes(damaged(rng.choice(sources), rng))
        stores.read_damaged(path)


def test_damaged_files(tmp_path):
    fuzz(tmp_path, 150)
    for seed in (1658, 6024):  # ended the process; gave fewer images than labels
        fuzz(tmp_path, seed, first=seed - 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_damaged_files_for_long(tmp_path):
    fuzz(tmp_path, round(50_000 * float(os.environ.get("FUZZ_SHARE", "1"))))


def test_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, 500)


@pytest.mark.slow
def test_all_of_lfw(lfw_tar, tmp_path):
    stores.check_lfw(make, tmp_path / "lfw", lfw_tar, None)


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint64()])
def test_labels_may_be_unsigned(tmp_path, kind):
    path = tmp_path / "set.parquet"
    table = {"image": pa.array([b"a", b"b", b"c"]), "label": pa.array([0, None, 2], kind)}
    pq.write_table(pa.table(table), path)
    said = []
    records = open_records(path, warn=said.append)
    assert list(records.identity_names) == ["0", "2"]
    assert "row 1: no label" in said[0]

"""The index of a store: grouping, keeping, checking, what is left when it does not fit."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from manyface.base.errors import DataError
from manyface.data.records.index import (
    RecordIndex,
    build_index,
    checksum_of,
    distinct,
    index_paths,
    keep_index,
    open_index,
)
from manyface.data.records.indexed import DamagedRecordError, IndexedRecords
from manyface.data.records.store import Faults, Found, RecordStore


class ListedStore(RecordStore):
    """Records held in memory; counts its scans."""

    kind = "listed"

    def __init__(self, path, people, *, names=None, chunk=3, mark="1"):
        super().__init__(path)
        self.people, self.names, self.chunk, self.mark = people, names, chunk, mark
        self.scans = 0

    @classmethod
    def recognise(cls, path, head):
        return None

    def fingerprint(self):
        return self.mark

    def scan(self, faults: Faults, progress) -> Iterator[Found]:
        self.scans += 1
        for start in range(0, len(self.people), self.chunk):
            people = self.people[start : start + self.chunk]
            places = np.arange(start, start + len(people), dtype=np.uint64)
            names = self.names and self.names[start : start + self.chunk]
            if not isinstance(people[0], str):
                people = np.array(people, np.int64)
            yield Found(places, np.full(len(places), 5, np.uint32), people, names)

    def read(self, place, size):
        return b"%05d" % place

    def describe(self, place):
        return f"{self.path}:{place}"


def read_all(records):
    """person -> its records' bytes."""
    starts = records.first_images
    return {
        name: [records.read(i) for i in range(starts[p], starts[p + 1])]
        for p, name in enumerate(records.identity_names)
    }


def test_numbers_become_dense_and_people_are_grouped(tmp_path):
    records = IndexedRecords(ListedStore(tmp_path / "a", [7, 3, 7, 900, 3, 7, 3]))
    assert read_all(records) == {
        "3": [b"00001", b"00004", b"00006"],
        "7": [b"00000", b"00002", b"00005"],
        "900": [b"00003"],
    }
    assert records.index.labels.tolist() == [1, 0, 1, 2, 0, 1, 0]


def test_names_are_sorted(tmp_path):
    store = ListedStore(tmp_path / "a", ["Zoe", "Ann", "Zoe", "José"], names=["x", "y", "z", "ü"])
    records = IndexedRecords(store)
    assert list(records.identity_names) == ["Ann", "José", "Zoe"]
    assert [records.file_name(i) for i in range(4)] == ["y", "ü", "x", "z"]
    assert records.describe(0) == f"{tmp_path / 'a'}:1 (y)"


def test_records_that_lie_grouped_need_no_order(tmp_path):
    records = IndexedRecords(ListedStore(tmp_path / "a", [0, 0, 1, 4]))
    assert records.index.in_storage(2) == 2
    assert records.index.num_bytes == 4 * (8 + 4 + 4) + 8 * 4 + 8 * 3  # no order, no ranks
    np.testing.assert_array_equal(records.from_storage(np.arange(4)), np.arange(4))


def test_storage_order_is_the_inverse_of_the_grouping(tmp_path):
    people = np.random.default_rng(0).integers(0, 9, 200).tolist()
    records = IndexedRecords(ListedStore(tmp_path / "a", people))
    grouped = records.from_storage(np.arange(200))
    assert [records.read(i) for i in grouped.tolist()] == [b"%05d" % i for i in range(200)]


@pytest.mark.parametrize("people", [[5], [0, 10**15, 3], [-4, 8, 8], [2**62, 2**62 + 1]])
def test_distinct_is_what_numpy_says(people):
    numbers, labels = distinct(np.array(people, np.int64))
    expected, which = np.unique(people, return_inverse=True)
    np.testing.assert_array_equal(numbers, expected)
    np.testing.assert_array_equal(labels, which)


def test_kept_and_opened_without_a_scan(tmp_path):
    store = ListedStore(tmp_path / "a", [4, 2, 4], names=["x", "y", "z"])
    first = read_all(IndexedRecords(store))
    again = ListedStore(tmp_path / "a", [4, 2, 4])
    assert read_all(IndexedRecords(again)) == first
    assert (store.scans, again.scans) == (1, 0)
    assert index_paths(tmp_path / "a")[0].is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.manyface-index"]


def test_the_file_is_one_that_safetensors_reads(tmp_path):
    open_index(ListedStore(tmp_path / "a", [4, 2, 4]))
    with safe_open(index_paths(tmp_path / "a")[0], "numpy") as file:
        assert file.get_tensor("labels").tolist() == [1, 0, 1]
        assert file.metadata()["kind"] == "listed"


def test_other_data_is_scanned_anew(tmp_path):
    open_index(ListedStore(tmp_path / "a", [4, 2]))
    changed = ListedStore(tmp_path / "a", [1, 1, 1], mark="2")
    assert len(open_index(changed)) == 3
    assert changed.scans == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "huge", "swapped"])
def test_a_damaged_index_is_built_anew(tmp_path, damage):
    store = ListedStore(tmp_path / "a", [4, 2, 4])
    open_index(store)
    path = index_paths(tmp_path / "a")[0]
    raw = path.read_bytes()
    path.write_bytes(
        {
            "cut": raw[:-5],
            "empty": b"",
            "text": b"hello, this is no index",
            "huge": (2**60).to_bytes(8, "little") + raw[8:],
            "swapped": raw.replace(b'"U32"', b'"U64"'),
        }[damage]
    )
    assert read_all(IndexedRecords(store))["2"] == [b"00001"]
    assert store.scans == 2


def test_in_the_cache_folder_where_the_data_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "not-a-folder"
    folder.write_text("so that nothing can be written in it")
    store = ListedStore(folder / "a", [4, 2, 4])
    open_index(store)
    open_index(store)
    assert store.scans == 1
    assert len(list((tmp_path / "cache" / "manyface").glob("a-*.manyface-index"))) == 1


def test_nowhere_to_keep_it(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert len(open_index(ListedStore(file / "a", [4, 2, 4]))) == 3


def test_bytes_are_checked_once_there_are_checksums(tmp_path):
    store = ListedStore(tmp_path / "a", [1, 0])
    checksums = np.array([checksum_of(b"00000"), checksum_of(b"other")], np.uint32)
    keep_index(open_index(store).with_checksums(checksums), store)
    records = IndexedRecords(store)
    assert records.read(1) == b"00000"
    with pytest.raises(DamagedRecordError, match="checksum"):
        records.read(0)
    assert store.scans == 1


def test_faults_are_kept_and_told(tmp_path):
    class Faulty(ListedStore):
        def scan(self, faults, progress):
            for number in range(1500):
                faults.add(f"fault {number}")
            yield from super().scan(faults, progress)

    told = []
    for _ in range(2):
        records = IndexedRecords(Faulty(tmp_path / "a", [1, 2]), warn=told.append)
    assert records.index.num_faults == 1500
    assert len(records.index.faults) == 1000
    expected = "1500 records are left out: fault 0; fault 1; fault 2"
    assert told == [f"{tmp_path / 'a'}: {expected}"] * 2


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="holds no image that could be read"):
        build_index(ListedStore(tmp_path / "a", []))


def _open_in_process(path: str, results) -> None:
    store = ListedStore(Path(path), list(range(1000)))
    open_index(store)
    results.put(store.scans)


def test_processes_that_open_at_once_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tmp_path / "a"), results)
    processes = [context.Process(target=_open_in_process, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    scans = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(scans) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.manyface-index"]
    header = (tmp_path / "a.manyface-index").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["labels"]


def test_load_says_no_to_what_is_none(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\2\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="not an index"):
        RecordIndex.load(path)


def _flipped(path, name, bit):
    """Flip one bit of the array `name` in the file of an index."""
    raw = bytearray(path.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    start, _ = json.loads(raw[8 : 8 + length])[name]["data_offsets"]
    raw[8 + length + start + bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


@pytest.mark.parametrize("bit", [0, 3, 65, 127])
@pytest.mark.parametrize("name", ["starts", "people.text", "people.ends", "numbers"])
def test_damaged_people_are_noticed_when_it_is_opened(tmp_path, name, bit):
    people = [9, 5, 9] if name == "numbers" else ["Zoe" * 6, "Ann", "Zoe" * 6]
    store = ListedStore(tmp_path / "a", people)
    first = read_all(IndexedRecords(store))
    _flipped(index_paths(tmp_path / "a")[0], name, bit)
    assert read_all(IndexedRecords(store)) == first
    assert store.scans == 2


@pytest.mark.parametrize("bit", [0, 1, 9, 31])
@pytest.mark.parametrize("name", ["order", "ranks"])
def test_no_record_is_given_to_another_person(tmp_path, name, bit):
    store = ListedStore(tmp_path / "a", [4, 2, 4, 2])
    open_index(store)
    _flipped(index_paths(tmp_path / "a")[0], name, bit)
    records = IndexedRecords(store)
    with pytest.raises(DataError, match=r"a\.manyface-index is damaged .*; delete it"):
        read_all(records)
    if name == "ranks" and bit > 1:
        with pytest.raises(DataError, match="delete it"):
            records.from_storage(np.arange(4))


@pytest.mark.parametrize("name", ["places", "sizes", "labels", "order", "names.text", "names.ends"])
def test_verify_sees_damage_anywhere(tmp_path, name):
    store = ListedStore(tmp_path / "a", [4, 2, 4, 2], names=["a", "b", "c", "d"])
    open_index(store).verify()
    _flipped(index_paths(tmp_path / "a")[0], name, 68 if name == "names.ends" else 4)
    with pytest.raises(DataError, match=rf"is damaged \({name}\)"):
        open_index(store).verify()


@pytest.mark.parametrize("error", [IndexError, OverflowError])
def test_a_place_that_cannot_be_is_damage(tmp_path, error, monkeypatch):
    records = IndexedRecords(ListedStore(tmp_path / "a", [4]))

    def read(place, size):
        raise error

    monkeypatch.setattr(records.store, "read", read)
    with pytest.raises(DataError, match=r"is damaged \(places\)"):
        records.read(0)


def test_an_array_that_lost_its_name_is_damage(tmp_path):
    store = ListedStore(tmp_path / "a", [4, 2, 4])
    path = index_paths(tmp_path / "a")[0]
    first = read_all(IndexedRecords(store))
    path.write_bytes(path.read_bytes().replace(b'"order": {', b'"ordes": {'))
    assert read_all(IndexedRecords(store)) == first
    assert store.scans == 2


def test_files_that_change_while_they_are_read(tmp_path):
    class Growing(ListedStore):
        def scan(self, faults, progress):
            yield from super().scan(faults, progress)
            self.mark = "2"

    with pytest.raises(DataError, match="changed while it was read"):
        open_index(Growing(tmp_path / "a", [4, 2]))
    assert not index_paths(tmp_path / "a")[0].exists()


def test_checksums_of_files_that_have_changed_are_not_kept(tmp_path):
    store = ListedStore(tmp_path / "a", [1, 0])
    index = open_index(store).with_checksums(np.zeros(2, np.uint32))
    store.mark = "2"
    assert keep_index(index, store) is None
    assert open_index(store).checksums is None
    assert store.scans == 2


@pytest.mark.parametrize("suffix", ["", ".lock"])
def test_links_that_came_with_a_set_lead_nowhere(tmp_path, monkeypatch, suffix):
    """Where the index and its lock lie is known to whoever packs a set."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("do not touch")
    store = ListedStore(tmp_path / "set" / "a", [1, 2])
    Path(f"{index_paths(store.path)[0]}{suffix}").symlink_to(secret)
    open_index(store)
    assert secret.read_text() == "do not touch"
    open_index(store)
    assert store.scans == 1, "it is kept in one place or the other"

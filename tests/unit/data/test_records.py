"""Which reader a path gets, and subsets of people."""

import os

import numpy as np
import pytest

from manyface.base.errors import DataError
from manyface.data.records import labels_of, open_records, select_records
from manyface.data.records.table import StringTable


def test_paths_that_are_no_data(tmp_path):
    with pytest.raises(DataError, match=r"no such data: .*nowhere.*; give the path of a folder"):
        open_records(tmp_path / "nowhere")
    for name, content in (("a.rec", b"\0\1\2"), ("b.txt", b""), ("c.tar", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="expected a folder of persons"):
            open_records(tmp_path / name)
    (tmp_path / "d.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="zip"):
        open_records(tmp_path / "d.zip")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(b"x")

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"cannot read .*a.tar: Permission denied"):
        open_records(path)


def test_subset_relabels_densely_in_sorted_order(write_faces):
    full = open_records(write_faces({"Ann": 1, "Bob": 2, "Cid": 3, "Dan": 1}))
    some = select_records(full, people=["Dan", "Bob", "Cid", "Bob"])
    assert list(some.identity_names) == ["Bob", "Cid", "Dan"]
    assert some.first_images.tolist() == [0, 2, 5, 6]
    assert labels_of(some.first_images, np.arange(6)).tolist() == [0, 0, 1, 1, 1, 2]
    for i, j in enumerate([1, 2, 3, 4, 5, 6]):
        assert some.read(i) == full.read(j)
        assert some.describe(i) == full.describe(j)
        assert some.file_name(i) == full.file_name(j)


def test_minimum_number_of_images(write_faces):
    full = open_records(write_faces({"Ann": 1, "Bob": 2, "Cid": 3}))
    assert list(select_records(full, min_images=2).identity_names) == ["Bob", "Cid"]
    twice = select_records(select_records(full, min_images=2), people=["Cid"])
    assert twice.read(0) == full.read(3)
    with pytest.raises(DataError, match=r"nobody is left of the 3 people .* lower min_images"):
        select_records(full, min_images=4)


def test_listed_people_must_exist(write_faces):
    full = open_records(write_faces({"Ann": 1}))
    with pytest.raises(DataError, match=r"1 of 2 listed people are not in .*'Eve'"):
        select_records(full, people=["Ann", "Eve"])
    with pytest.raises(DataError, match="is empty"):
        select_records(full, people=[])


def test_people_are_found_whatever_their_unicode_spelling(write_faces):
    full = open_records(write_faces({"Jose\u0301": 1}))
    assert list(select_records(full, people=["Jos\u00e9"]).identity_names) == ["Jos\u00e9"]


def test_string_table():
    table = StringTable(["a", "", "ü b", "\udcff"])
    assert list(table) == ["a", "", "ü b", "\udcff"]
    assert table[-2] == "ü b"
    assert table[1:3] == ["", "ü b"]
    with pytest.raises(IndexError, match="index 4"):
        table[4]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        open_records(tmp_path / "pipe")


def test_a_verification_set_is_sent_where_it_belongs(tmp_path):
    for name, content in (("lfw.bin", b"x"), ("lfw.pkl", b"\x80\x04rest")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=r"evaluation\.pairs.*manyface data pairs"):
            open_records(tmp_path / name)

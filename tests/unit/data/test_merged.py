"""Several sets as one."""

import numpy as np
import pytest

from manyface.data.records import open_records
from manyface.data.records.merged import MergedRecords, same_names


@pytest.fixture
def sets(write_faces):
    return [
        open_records(write_faces({"Ann": 2, "Bob": 1, "Cid": 3}, folder="one")),
        open_records(write_faces({"Ann": 1, "Dan": 2}, folder="two")),
    ]


def content(records):
    starts = records.first_images
    return {
        name: [records.read(i) for i in range(starts[p], starts[p + 1])]
        for p, name in enumerate(records.identity_names)
    }


def test_people_stay_apart_unless_told(sets):
    merged = MergedRecords(sets, same=[])
    one, two = map(content, sets)
    assert content(merged) == {
        "Ann (1)": one["Ann"],
        "Bob": one["Bob"],
        "Cid": one["Cid"],
        "Ann (2)": two["Ann"],
        "Dan": two["Dan"],
    }
    assert merged.num_joined == 0


def test_joined_by_name(sets):
    merged = MergedRecords(sets, same=same_names(sets))
    one, two = map(content, sets)
    assert content(merged)["Ann"] == one["Ann"] + two["Ann"]
    assert list(merged.identity_names) == ["Ann", "Bob", "Cid", "Dan"]
    assert merged.first_images.tolist() == [0, 3, 4, 7, 9]
    assert merged.num_joined == 1


def test_joined_across_and_in_chains(sets):
    merged = MergedRecords(sets, same=[((0, 2), (1, 1)), ((1, 1), (0, 0)), ((0, 0), (0, 2))])
    one, two = map(content, sets)
    assert content(merged)["Ann (1)"] == one["Ann"] + one["Cid"] + two["Dan"]
    assert merged.num_joined == 2


def test_names_and_places(sets):
    merged = MergedRecords(sets, same=same_names(sets))
    assert merged.describe(2) == sets[1].describe(0)
    assert merged.file_name(8) == sets[1].file_name(2)
    np.testing.assert_array_equal(np.diff(merged.first_images), [3, 1, 3, 2])


def test_a_text_of_any_set(sets):
    (sets[1].path / "people.txt").write_text("Dan")
    assert MergedRecords(sets, same=[]).read_text("people.txt") == "Dan"

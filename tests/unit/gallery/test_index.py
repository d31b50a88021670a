"""The index of people: versions, replacing and removing; its file, whole, damaged or of another."""

import json
import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from manyface.base.errors import ConfigError, DataError, NonFiniteError, WriteError
from manyface.base.files import held
from manyface.data.records.index_file import map_arrays, write_arrays
from manyface.gallery import Cropping, Faces, Limit, Maker, PeopleIndex, Search
from manyface.gallery import index as index_module

from .conftest import MAKER, D, make_faces


def content(index):
    """(name, image, version) -> embedding."""
    people = index.people
    return {
        (people.names[label], image, int(version)): row.tobytes()
        for row, label, image, version in zip(
            people.embeddings, people.labels.tolist(), people.images, people.versions, strict=True
        )
    }


def test_enrolling_again_adds_images_and_replaces_those_of_the_same_name(index):
    again = index.enrol(make_faces({"Ann": 4, "Di": 1}, seed=9), source="more/", when="")
    assert sorted(again.people.names) == ["Ann", "Bob", "Cy", "Di"]
    of_ann = {key[1:] for key in content(again) if key[0] == "Ann"}
    assert of_ann == {(f"{k}.jpg", 2) for k in range(4)}
    assert (again.version, again.changes[-1].added, again.changes[-1].removed) == (2, 5, 3)
    assert len(index.people) == 6  # the old one is as it was


def test_replacing_people_drops_all_that_they_had(index):
    faces = make_faces({"Ann": 1}, seed=9)
    faces = Faces(faces.embeddings, faces.labels, faces.names, ["other.jpg"])
    added = index.enrol(faces, source="", when="")
    replaced = index.enrol(faces, source="", when="", replace_people=True)
    assert sum(key[0] == "Ann" for key in content(added)) == 4
    assert [key for key in content(replaced) if key[0] == "Ann"] == [("Ann", "other.jpg", 2)]
    assert {key[0] for key in content(replaced)} == {"Ann", "Bob", "Cy"}


def test_removing_people(index):
    left = index.remove(["Ann", "Cy"], when="")
    assert list(content(left)) == [("Bob", "0.jpg", 1)]
    assert left.changes[-1].removed == 5
    with pytest.raises(DataError, match="nobody here is called 'Eve'"):
        index.remove(["Eve"], when="")


def test_names_of_people_without_a_face_are_not_enrolled(index):
    faces = make_faces({"X": 1, "Y": 1})
    only_y = Faces(faces.embeddings[1:], faces.labels[1:], faces.names, ["y.jpg"])
    assert index.enrol(only_y, source="", when="").people.names == ["Ann", "Bob", "Cy", "Y"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_embeddings_that_are_no_directions_are_refused(index, bad):
    faces = make_faces({"Ann": 2})
    faces.embeddings[1] = bad
    with pytest.raises(NonFiniteError, match=r"the embedding of 1\.jpg"):
        index.enrol(faces, source="", when="")


def test_faces_of_another_size_and_no_faces_are_refused(index):
    wide = Faces(np.ones((1, D + 1)), np.zeros(1, np.int64), ["A"], ["a"])
    with pytest.raises(DataError, match=f"the people here have {D} values"):
        index.enrol(wide, source="", when="")
    none = Faces(np.zeros((0, D)), np.zeros(0, np.int64), [], [])
    with pytest.raises(DataError, match="no face to enrol"):
        index.enrol(none, source="", when="")


def test_of_another_model(index):
    index.check_maker(Maker("a" * 32, D, "moved/net"), "people.index")
    with pytest.raises(ConfigError, match=r"another model \(runs/net"):
        index.check_maker(Maker("c" * 32, D), "people.index")
    with pytest.raises(ConfigError, match=f"{D} values, the model gives 512"):
        index.check_maker(Maker("a" * 32, 512), "people.index")


def test_a_file_holds_all_of_it(index, tmp_path):
    path = tmp_path / "deep" / "people.index"
    index = index.enrol(make_faces({"Zoë\udcff": 1}), source="é", when="2026-01-02")
    index.save(path)
    read = PeopleIndex.open(path)
    assert content(read) == content(index)
    assert (read.maker, list(read.changes)) == (MAKER, list(index.changes))
    assert read.maker.limit == Limit(0.4, 1e-3, "lfw")
    assert load_file(path)["embeddings"].shape == (7, D)  # the library reads it, too
    assert [each.name for each in path.parent.iterdir()] == ["people.index"]


def test_codes_follow_what_is_added_and_removed(many, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 50)
    index = many(60)
    more = index.enrol(make_faces({"Ann": 5}), source="", when="").remove(["p3"], when="")
    assert more.coder is index.coder
    np.testing.assert_array_equal(more.codes, more.coder.encode(more.people.embeddings))
    more.save(tmp_path / "i")
    read = PeopleIndex.open(tmp_path / "i")
    np.testing.assert_array_equal(read.codes, more.codes)
    assert read.enrol(make_faces({"Bob": 1}), source="", when="").coded_at == 60
    assert read.enrol(make_faces({"Bob": 80}), source="", when="").coded_at == 144
    few = read.remove([f"p{k}" for k in range(10, 40)], when="")
    assert few.coder is few.codes is None


def test_every_damaged_byte_and_every_cut_is_seen(index, tmp_path):
    path = tmp_path / "people.index"
    index.save(path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(whole)), 300):
        if whole[place : place + 1] == b" ":  # padding of the header
            continue
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x08]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"people\.index"):
            PeopleIndex.open(path)
    for length in [0, 1, 7, 8, 9, 100, *rng.sample(range(len(whole)), 50)]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"people\.index"):
            PeopleIndex.open(path)


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "{" * 5000, '{"__metadata__": 3}', "\x00\x01"])
def test_other_files_are_no_index(tmp_path, text):
    path = tmp_path / "people.index"
    raw = text.encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(DataError, match=r"people\.index"):
        PeopleIndex.open(path)


def test_a_folder_and_a_missing_file_are_no_index(tmp_path):
    with pytest.raises(DataError, match="cannot"):
        PeopleIndex.open(tmp_path)
    with pytest.raises(DataError, match=r"no index at .*manyface enroll"):
        PeopleIndex.open(tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.full(6, 3, np.int64)},
        {"labels": np.full(6, -1, np.int64)},
        {"labels": np.zeros(6, np.int64)},
        {"labels": np.zeros((6, 1), np.int64)},
        {"versions": np.zeros(5, np.uint32)},
        {"embeddings": np.zeros((6, D + 1), np.float16)},
        {"embeddings": np.zeros((6, D), np.float32)},
        {"names.ends": np.array([0, 3, 2, 8], np.int64)},
        {"images.ends": np.zeros(0, np.int64)},
        {"codes": np.zeros((6, 8), np.uint8)},
        {"codes": np.zeros(6, np.uint8)},
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused_with_right_hashes(index, tmp_path, change):
    path = tmp_path / "people.index"
    index.save(path)
    arrays, notes = map_arrays(path)
    forged = tmp_path / "forged.index"
    with forged.open("wb") as file:
        write_arrays(file, {**arrays, **change}, notes)
    with pytest.raises(DataError, match=r"forged\.index cannot be used"):
        PeopleIndex.open(forged)


def forge(index, path, change, arrays=None):
    """The file of `index` with facts that `change` has changed, and right hashes."""
    index.save(path)
    whole, notes = map_arrays(path)
    whole = {name: np.array(array) for name, array in whole.items()}
    facts = json.loads(notes["facts"])
    change(facts)
    text = json.dumps(facts)
    notes |= {"facts": text, "facts_hash": index_module._hash_of(text)}
    with path.open("wb") as file:
        write_arrays(file, {**whole, **(arrays or {})}, notes)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["maker"].update(path=5),
        lambda facts: facts["maker"].update(fingerprint=None),
        lambda facts: facts["maker"].update(embedding_size=str(D)),
        lambda facts: facts["maker"].update(more=1),
        lambda facts: facts["maker"]["limit"].update(cosine="0.4"),
        lambda facts: facts["maker"]["limit"].update(cosine=float("nan")),
        lambda facts: facts["maker"]["limit"].update(cosine=17.0),
        lambda facts: facts["maker"]["limit"].update(far=3.0),
        lambda facts: facts["maker"]["limit"].update(measured_on=[1]),
        lambda facts: facts["changes"][0].update(version="1"),
        lambda facts: facts.update(changes=[1]),
        lambda facts: facts.update(cropping={"align": 1, "resize": False}),
        lambda facts: facts.update(cropping=[]),
    ],
)
def test_facts_that_cannot_be_are_refused_with_right_hashes(index, tmp_path, change):
    forge(index, tmp_path / "i", change)
    with pytest.raises(DataError, match="cannot be used"):
        PeopleIndex.open(tmp_path / "i")


@pytest.mark.parametrize("value", [np.nan, np.inf, 100.0])
def test_embeddings_that_no_enrolment_makes_are_not_found(index, tmp_path, value):
    arrays = {"embeddings": np.full((6, D), value, np.float16)}
    forge(index, tmp_path / "i", lambda facts: None, arrays)
    with pytest.raises(DataError, match="not of unit length"):
        Search(PeopleIndex.open(tmp_path / "i")).people(np.ones((1, D), np.float32))


def test_codes_of_a_number_of_bits_that_is_none(many, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 50)
    index = many(60)
    for bits, width in ((12, 1), (0, 0)):
        arrays = {
            "directions": np.zeros((D, bits), np.float32),
            "codes": np.zeros((60, width), np.uint8),
        }
        forge(index, tmp_path / "i", lambda facts: None, arrays)
        with pytest.raises(DataError, match=f"codes of {bits} bits"):
            PeopleIndex.open(tmp_path / "i")


def test_how_images_became_faces_is_kept_and_need_not_be_there(index, tmp_path):
    made = PeopleIndex.new(MAKER, Cropping("uniface", resize=True))
    made = made.enrol(make_faces({"Ann": 1}), source="", when="").remove(["Ann"], when="")
    made.save(tmp_path / "i")
    assert PeopleIndex.open(tmp_path / "i").cropping == Cropping("uniface", resize=True)
    forge(index, tmp_path / "old", lambda facts: facts.pop("cropping"))
    old = PeopleIndex.open(tmp_path / "old")
    assert old.cropping is None
    assert content(old) == content(index)


def test_an_index_that_is_private_stays_private(index, tmp_path):
    path = tmp_path / "people.index"
    index.save(path)
    path.chmod(0o600)
    index.enrol(make_faces({"Eve": 1}), source="", when="").save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_no_index_and_does_not_become_one(index, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is no plain file"):
        PeopleIndex.open(tmp_path / "pipe")
    with pytest.raises(WriteError, match="it is no plain file"):
        index.save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_another_version_says_so(index, tmp_path):
    index.save(tmp_path / "i")
    arrays, notes = map_arrays(tmp_path / "i")
    with (tmp_path / "j").open("wb") as file:
        write_arrays(file, arrays, {**notes, "format": "manyface-people-2"})
    with pytest.raises(DataError, match="expected manyface-people-1, got 'manyface-people-2'"):
        PeopleIndex.open(tmp_path / "j")


def test_declared_sizes_take_no_memory(tmp_path):
    header = {"embeddings": {"dtype": "F16", "shape": [1 << 40, 512], "data_offsets": [0, 1 << 50]}}
    raw = json.dumps(header).encode()
    (tmp_path / "i").write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(DataError, match="cut off"):
        PeopleIndex.open(tmp_path / "i")


def test_a_place_that_cannot_be_written(index, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        index.save(tmp_path / "file" / "people.index")


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "people.index"
    with held(path), pytest.raises(DataError, match="another process is writing"), held(path):
        pass
    with held(path):
        pass
    assert not list(tmp_path.iterdir())


def _die_while_saving(index, path):
    import manyface.data.records.files as files

    def die(descriptor):
        os.kill(os.getpid(), signal.SIGKILL)

    files.os.fsync = die
    index.save(path)


def test_a_save_that_is_killed_leaves_the_old_file(index, tmp_path):
    path = tmp_path / "people.index"
    index.save(path)
    before = path.read_bytes()
    more = index.enrol(make_faces({"Eve": 5}), source="", when="")
    process = multiprocessing.get_context("spawn").Process(
        target=_die_while_saving, args=(more, path)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert path.read_bytes() == before

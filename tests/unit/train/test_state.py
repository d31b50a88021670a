import errno

import pytest
import torch

from manyface.base.errors import CheckpointError, DataError
from manyface.checkpoint import load, newest
from manyface.checkpoint import manifest as manifest_module
from manyface.checkpoint import verify as verify_module
from manyface.data.synthetic import SyntheticFaces
from manyface.train.state import (
    Position,
    identities_fingerprint,
    newest_good,
    pack,
    read_position,
    resume_state,
    save_state,
    unpack,
    unpack_groups,
)


class Counter:
    """A method that is one tensor and an optimizer-like tree."""

    def __init__(self, value: float) -> None:
        self.state = {
            "net": {"weight": torch.full((2, 3), value)},
            "optimizer": {
                "state": {0: {"momentum": torch.tensor([value]), "betas": (0.9, 0.999)}, 1: {}},
                "groups": [{"lr": 0.1 + 0.2, "params": [0, 1], "fused": None, "on": True}],
            },
        }

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_trees_come_back_as_they_were():
    tree = Counter(1.5).state["optimizer"]
    tensors = {}
    packed = pack(tree, tensors)
    assert tensors.keys() == {"state.0.momentum"}
    again = unpack(packed, tensors)
    assert again["groups"] == tree["groups"]
    assert again["state"][0]["betas"] == (0.9, 0.999)
    assert again["state"].keys() == {0, 1}
    assert torch.equal(again["state"][0]["momentum"], tree["state"][0]["momentum"])


@pytest.mark.parametrize("tree", [{"$tensor": 3}, {"$x": {"$items": [1]}}, {"": []}, {1: {2: ()}}])
def test_names_that_look_like_markers_survive(tree):
    assert unpack(pack(tree, {}), {}) == tree


def test_what_a_checkpoint_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"'a\.0' is a set"):
        pack({"a": [{1}]}, {})


def test_save_and_resume(tmp_path):
    position = Position(step=7, evaluated_step=5, best_score=0.1 + 0.2, images=70)
    save_state(tmp_path, Counter(2.0), position, data={"num_images": 70})
    method = Counter(0.0)
    found, path = resume_state(tmp_path, method, data={"num_images": 70})
    assert found == position
    assert path == newest(tmp_path)
    assert torch.equal(method.state["net"]["weight"], torch.full((2, 3), 2.0))


def test_without_a_checkpoint_a_resume_begins_at_the_start(tmp_path):
    assert resume_state(tmp_path, Counter(0.0)) == (Position(), None)


def test_changed_data_is_refused(tmp_path):
    save_state(tmp_path, Counter(2.0), Position(step=1), data={"num_images": 70})
    with pytest.raises(DataError, match="num_images was 70, is 71"):
        resume_state(tmp_path, Counter(0.0), data={"num_images": 71})


def test_a_damaged_newest_checkpoint_is_put_aside_and_the_one_before_used(tmp_path):
    for step in (1, 2):
        save_state(tmp_path, Counter(float(step)), Position(step=step))
    (tmp_path / "step-00000002" / "net.safetensors").write_bytes(b"x")
    said = []
    checkpoint = newest_good(tmp_path, warn=said.append)
    assert checkpoint.step == 1
    assert "net.safetensors is damaged" in said[0]
    assert "put aside as damaged-step-00000002-0" in said[0]
    save_state(tmp_path, Counter(3.0), Position(step=2))  # the name is free again


def test_checkpoints_of_another_version_stay_where_they_are(tmp_path):
    path = save_state(tmp_path, Counter(1.0), Position(step=1))
    manifest = manifest_module.read_manifest(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_module, "FORMAT_VERSION", 3)
        (path / "MANIFEST.json").write_bytes(manifest_module.render(manifest))
    with pytest.raises(CheckpointError, match="version 2, got manyface-checkpoint version 3"):
        newest_good(tmp_path)
    assert path.is_dir()


def test_a_checkpoint_that_cannot_be_read_now_stays_where_it_is(tmp_path, monkeypatch):
    path = save_state(tmp_path, Counter(1.0), Position(step=1))

    def no_more_files(path, facts, blocks):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(verify_module, "check_blocks", no_more_files)
    with pytest.raises(CheckpointError, match="Too many open files"):
        newest_good(tmp_path)
    assert path.is_dir()


def test_if_every_checkpoint_is_damaged_nothing_begins_anew(tmp_path):
    for step in (1, 2):
        path = save_state(tmp_path, Counter(float(step)), Position(step=step))
        (path / "net.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(2 put aside"):
        resume_state(tmp_path, Counter(0.0))


def test_other_people_under_the_same_numbers_have_another_fingerprint():
    faces = {"num_identities": 5, "images_per_identity": 2, "image_size": 32}
    one = identities_fingerprint(SyntheticFaces(**faces))
    assert one == identities_fingerprint(SyntheticFaces(**faces))
    assert one != identities_fingerprint(SyntheticFaces(**faces, seed=1))


def test_changed_people_are_refused(tmp_path):
    save_state(tmp_path, Counter(2.0), Position(step=1), data={"fingerprint": 1})
    with pytest.raises(DataError, match="labels would mean other people"):
        resume_state(tmp_path, Counter(0.0), data={"fingerprint": 2})


def test_a_position_of_another_version_is_refused(tmp_path):
    checkpoint = load(save_state(tmp_path, Counter(2.0), Position(step=1)))
    checkpoint.state["position"]["unknown"] = 1
    with pytest.raises(CheckpointError, match="unknown"):
        read_position(checkpoint)


def test_only_the_groups_that_were_read_are_given(tmp_path):
    path = save_state(tmp_path, Counter(2.0), Position(step=1))
    assert unpack_groups(load(path, groups=("net",))).keys() == {"net"}


def test_the_best_score_is_noted_and_a_missing_one_changes_nothing():
    position = Position(step=3)
    assert not position.take_score(None)
    assert position.evaluated_step == 0
    assert position.take_score(0.5)
    assert not position.take_score(0.5)
    assert not position.take_score(0.4)
    assert position.take_score(0.6)
    assert (position.best_score, position.evaluated_step) == (0.6, 3)

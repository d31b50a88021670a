"""Bundles: what is written is what is read; whatever else a file holds is refused, and said why."""

import json
import pickletools
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from random_model import DIM, SIZE, THRESHOLD, make_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import manyface as mf
from manyface.backbones import create_backbone, load_backbone_weights
from manyface.base.errors import CheckpointError, DamagedCheckpointError, ManyfaceError
from manyface.base.random import numpy_generator
from manyface.model import Preprocessing
from manyface.model.card import KEY, Card
from manyface.model.export import export


@pytest.fixture
def bundle(model, faces, tmp_path) -> Path:
    return export(model, tmp_path / "faces.safetensors", "safetensors", faces).path


def card_of(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[KEY])


def rewrite(path: Path, change) -> None:
    """The same tensors with a card that `change` has changed."""
    body = card_of(path)
    body = change(body) or body
    save_file(load_file(path), path, {KEY: body if isinstance(body, str) else json.dumps(body)})


def test_what_is_written_is_read(model, faces, bundle):
    found = mf.load(bundle, device="cpu")
    assert torch.equal(found.embed_batch(faces), model.embed_batch(faces))
    for name in ("name", "fingerprint", "weights", "embedding_size", "preprocessing"):
        assert getattr(found, name) == getattr(model, name), name
    assert found.threshold == THRESHOLD
    assert found.license == "for tests"
    assert found.provenance["run"] == "none"
    assert found.provenance["exported_by"]["manyface"] == mf.__version__


def test_another_preprocessing_is_kept(faces, tmp_path):
    feed = Preprocessing(SIZE, "BGR", (1.0, 2.0, 3.0), (4.0, 5.0, 6.5), flip=False)
    model = make_model(preprocessing=feed, threshold=None, license=None)
    path = export(model, tmp_path / "x", "safetensors", faces, license="CC BY-NC 4.0").path
    found = mf.load(path)
    assert found.preprocessing == feed
    assert (found.threshold, found.license) == (None, "CC BY-NC 4.0")
    assert torch.equal(found.embed_batch(faces), model.embed_batch(faces))


def test_equal_models_give_equal_files(model, faces, bundle, tmp_path):
    again = export(make_model(), tmp_path / "again.safetensors", "safetensors", faces).path
    assert again.read_bytes() == bundle.read_bytes()
    exported_again = export(mf.load(bundle), tmp_path / "third", "safetensors", faces)
    assert exported_again.path.read_bytes() == bundle.read_bytes()


def test_there_is_no_pickle_in_it(bundle):
    """Header, then tensors to the last byte; and what they hold is no program."""
    data = bundle.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert max(ends) == len(data) - 8 - length
    with pytest.raises(ValueError):  # noqa: PT011  whatever it stumbles over first
        list(pickletools.genops(data))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda body: body.update(version=2), r"expected manyface-model version 1, got .* 2; read"),
        (lambda body: body.update(format="x"), "got x version 1"),
        (lambda body: body.update(extra=1), "'extra' of the model is unknown"),
        (lambda body: body.__delitem__("license"), "'license' of the model is missing"),
        (lambda body: body.update(name=3), "'name' of the model is int"),
        (lambda body: body["preprocessing"].update(gamma=2.2), "'gamma' of preprocessing is unkn"),
        (lambda body: body["preprocessing"].update(colour="YUV"), "colour must be one of"),
        (lambda body: body["preprocessing"].update(mean=[1, 2]), "three numbers each"),
        (lambda body: body["preprocessing"].update(mean=[1, 2, "3"]), "three numbers each"),
        (lambda body: body["preprocessing"].update(image_size=48), "takes 32 pixels and images"),
        (lambda body: body["preprocessing"].update(flip=1), "'flip' of preprocessing is int"),
        (lambda body: body["threshold"].update(value=None), "'value' of threshold is NoneType"),
        (lambda body: body["threshold"].update(value=10**400), "too large"),
        (lambda body: body["threshold"].update(value=17), "cannot be a threshold"),
        (lambda body: body["threshold"].update(far=0), "cannot be a threshold"),
        (lambda body: body["threshold"].update(tar=1.5), "cannot be a threshold"),
        (lambda body: body["threshold"].update(num_same=-1), "cannot be a threshold"),
        (lambda body: body["preprocessing"].update(mean=[10**400, 1, 1]), "too large"),
        (lambda body: json.dumps(body).replace("0.3125", "NaN"), "NaN is no number of JSON"),
        (lambda body: body["architecture"].update(name="r18"), "does not fit this backbone"),
        (lambda body: body["architecture"].update(name="nothing"), "unknown backbone 'nothing'"),
        (lambda body: body["architecture"].update(embedding_size=512), r"file \[16, 512\], net \["),
        (lambda body: body["architecture"].update(options={"depths": [10**9] * 3}), "option 'dep"),
        (
            lambda body: body["architecture"].update(options={"depths": [999] * 3}),
            "option 'depths'",
        ),
        (lambda body: body["architecture"].update(options={"call": "x"}), "has no option 'call'"),
        (lambda body: body["architecture"].update(options={"widths": "x"}), "its architecture: a"),
        (lambda body: body["architecture"].update(options={"widths": ["x", 1, 1]}), "its architec"),
        (lambda body: body.update(weights="0" * 32), "expected tensors with xxh3 000"),
        (lambda body: body.update(fingerprint="0" * 32), "fingerprint 000"),
        (lambda body: "{", "is damaged: what it says of itself"),
        (lambda body: "[" * 100_000, "is damaged: what it says of itself"),
        (lambda body: "[1]", "expected an object, got list"),
    ],
)
def test_cards_that_are_not_as_specified(bundle, change, message):
    rewrite(bundle, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        mf.load(bundle)
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_was_changed_renamed_or_taken_out(bundle):
    whole = load_file(bundle)
    with safe_open(bundle, framework="pt") as file:
        metadata = file.metadata()
    changed = {**whole, "fc.weight": whole["fc.weight"] + 1e-7}
    shorter = {name: value for name, value in whole.items() if name != "fc.weight"}
    for tensors in (changed, shorter, {**shorter, "fc.wieght": whole["fc.weight"]}):
        save_file(tensors, bundle, metadata)
        with pytest.raises(DamagedCheckpointError, match="expected tensors with xxh3"):
            mf.load(bundle)


def test_flipped_bits_are_found(bundle):
    """Anywhere in the tensors; in the header whatever matters."""
    data = bundle.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    generator = numpy_generator(0, "damage")
    for place in generator.integers(start, len(data), size=20):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(generator.integers(8))
        bundle.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError):
            mf.load(bundle)


def test_damaged_headers_give_one_line(bundle):
    data = bundle.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    generator = numpy_generator(1, "damage")
    for place in generator.integers(0, start, size=60):
        damaged = bytearray(data)
        damaged[place] = int(generator.integers(256))
        bundle.write_bytes(damaged)
        with suppress(ManyfaceError):  # nothing else
            mf.load(bundle)


@pytest.mark.parametrize("keep", [0, 7, 9, 200, -1, -4000])
def test_a_file_that_was_cut_off(bundle, keep):
    bundle.write_bytes(bundle.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=str(bundle)):
        mf.load(bundle)


def test_a_training_can_begin_with_a_bundle(model, bundle):
    net = create_backbone("tiny", embedding_size=DIM, image_size=SIZE, seed=7)
    load_backbone_weights(net, bundle)
    assert torch.equal(net.get_parameter("fc.weight"), model.net.get_parameter("fc.weight"))


def test_card_round_trip(model):
    card = Card(
        "n", model.architecture, model.preprocessing, "w", "f", THRESHOLD, {"a": [1]}, "l", "g"
    )
    assert Card.from_json(card.to_json(), where="x") == card
    assert card.architecture.embedding_size == DIM


def test_tensors_of_a_dtype_that_no_bundle_has(bundle):
    whole = load_file(bundle)
    with safe_open(bundle, framework="pt") as file:
        metadata = file.metadata()
    whole["fc.weight"] = whole["fc.weight"].to(torch.float8_e4m3fn)
    save_file(whole, bundle, metadata)
    with pytest.raises(DamagedCheckpointError, match="float8_e4m3fn, which cannot be saved"):
        mf.load(bundle)

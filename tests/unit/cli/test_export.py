"""`manyface export`: what is printed, written and refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_model import SIZE, make_model
from safetensors.torch import save_file
from tiny_recipe import TINY

import manyface as mf
from manyface.backbones import create_backbone
from manyface.cli import main
from manyface.config import parse_config
from manyface.data import VerificationSet, write_bin
from manyface.data.synthetic import SyntheticFaces
from manyface.model.export import export
from manyface.train.run import train


@pytest.fixture
def run(capsys):
    def call(*words: object) -> tuple[int, str, str]:
        return main(["export", *map(str, words)]), *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(parse_config("", [*TINY, f"run.directory={folder}", "run.name=tiny"]))
    return folder / "tiny"


@pytest.fixture
def pairs_bin(tmp_path) -> Path:
    """Ten same and ten different pairs of rendered faces."""
    people = SyntheticFaces(num_identities=20, images_per_identity=2, image_size=32, seed=5)
    first = np.arange(20) * 2
    second = np.where(np.arange(20) % 2 == 0, first + 1, (first + 2) % 40)
    images = []
    for pixels in people.load(np.stack([first, second], axis=1).ravel()).numpy():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        images.append(buffer.getvalue())
    write_bin(tmp_path / "rendered.bin", VerificationSet(images, np.arange(20) % 2 == 0))
    return tmp_path / "rendered.bin"


def test_a_bundle(run, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(trained, "--format", "safetensors", "--far", 0.1, "--license", "MIT")
    assert (code, err) == (0, "")
    assert out.startswith("Wrote tiny.safetensors, ")
    lines = " ".join(out.split())
    assert (
        "images 32 x 32, RGB, mean 127.5, std 127.5, arcface template, mirror image added" in lines
    )
    assert "at FAR 0.1 (TAR " in lines
    assert "on synthetic: 20 same and 20 different pairs" in lines
    assert "license MIT" in lines
    assert "parity cosine with the trained net at least 0.99999" in lines
    model = mf.load("tiny.safetensors")
    assert model.fingerprint == mf.load(trained).fingerprint
    assert model.threshold.far == 0.1


def test_onnx_of_another_checkpoint(run, trained, tmp_path):
    path = tmp_path / "new" / "x.onnx"
    code, out, err = run(
        *(trained, "--format", "onnx", "-o", path, "--checkpoint", "step-00000006"),
        *("--far", 0.1, "--normalise"),
    )
    assert (code, err) == (0, "")
    lines = " ".join(out.split())
    assert (
        "graph opset 18, 'data' [batch, 3, 32, 32] -> 'embedding' [batch, 16], any batch" in lines
    )
    assert "mean 127.5, std 127.5 (in the graph)" in lines
    assert mf.load(path).provenance["step"] == 6


def test_a_far_that_the_pairs_cannot_show(run, trained, tmp_path):
    path = tmp_path / "x.safetensors"
    code, out, err = run(trained, "--format", "safetensors", "-o", path)
    assert code == 0
    assert "warning: the file states no threshold: synthetic has 20 different pairs" in err
    assert "threshold none" in " ".join(out.split())
    code, _, err = run(trained, "--format", "safetensors", "-o", path, "--far", 1e-4)
    assert code == 1
    assert "can show no FAR below 0.05" in err


def test_given_faces_and_pairs(run, trained, tmp_path, pairs_bin):
    faces = Path(__file__).parents[4] / "shared/data/orl.tar"
    if not faces.is_file():
        pytest.skip(f"no real faces here ({faces})")
    path = tmp_path / "x.safetensors"
    words = (trained, "--format", "safetensors", "-o", path, "--far", 0.5, "--pairs", pairs_bin)
    code, out, _ = run(*words, "--faces", faces, "--set", "evaluation.folds=2")
    assert code == 0
    assert mf.load(path).threshold.measured_on == "rendered"
    assert "on 32 faces" in out


def test_a_model_that_is_no_run(run, trained, tmp_path, pairs_bin):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run(trained, "--format", "safetensors", "-o", first)
    code, _, err = run(first, "--format", "safetensors", "-o", second)
    assert (code, err) == (0, "warning: compared on synthetic faces: give real ones with --faces\n")
    assert second.read_bytes() == first.read_bytes()
    words = (first, "--format", "safetensors", "-o", second, "--pairs", pairs_bin)
    assert run(*words, "--far", 0.5)[0] == 0
    assert mf.load(second).threshold.measured_on == "rendered"


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--format", "tflite"), 2, "--format is one of safetensors, onnx, got 'tflite'"),
        (("--format", "onnx", "--colour", "YUV"), 2, "--colour is one of RGB, BGR"),
        (("--format", "safetensors", "--normalise"), 2, "into ONNX only"),
        (("--format", "onnx", "--checkpoint", "step-1"), 1, "no checkpoint 'step-1'"),
        (("--format", "safetensors", "--faces", "/absent"), 1, "/absent"),
        (("--format", "safetensors", "--far", "0"), 1, "a FAR must be above 0"),
        (("--format", "safetensors", "--pairs", "/absent.bin"), 2, "/absent.bin"),
        (("--format", "safetensors", "-o", "{run}/checkpoints/step-00000008/x"), 2, "would lie in"),
        (("--format", "safetensors", "-o", "/proc/x.safetensors"), 1, "cannot write /proc/x.safet"),
        (("--format", "safetensors", "-o", "/dev/null"), 1, "/dev/null is neither a file nor"),
    ],
)
def test_what_is_refused(run, trained, tmp_path, words, code, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(trained, *(word.format(run=trained) for word in words))
    assert (found, out) == (code, "")
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_weights_alone_and_their_colour(run, tmp_path):
    net = create_backbone("ir_18", embedding_size=8, image_size=32, depths=(1, 1, 1, 1))
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    for colour, expected in ((None, "BGR"), ("RGB", "RGB")):
        more = ("--colour", colour) if colour else ()
        path = tmp_path / "w2.safetensors"
        assert run(tmp_path / "w.safetensors", "--format", "safetensors", "-o", path, *more)[0] == 0
        assert mf.load(path).preprocessing.colour == expected
    code, _, err = run(tmp_path / "w.safetensors", "--format", "onnx", "--far", 0.1)
    assert code == 2
    assert "--far needs pairs to measure on" in err


def test_the_name_of_a_strangers_file_leads_nowhere(run, tmp_path, monkeypatch):
    """A card may call its model as it likes; without --output that is the name of a file here."""
    (tmp_path / "deep" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "here")
    model = make_model(name="../../evil\x1b[2J", license="a\nb\x1b[2J")
    export(model, Path("stranger"), "safetensors", torch.zeros(1, SIZE, SIZE, 3).byte())
    code, out, _ = run("stranger", "--format", "safetensors")
    assert code == 0
    assert "license        a\\nb\\x1b[2J" in out
    assert "\x1b" not in out
    assert [each.name for each in tmp_path.iterdir()] == ["deep"]
    names = sorted(each.name for each in Path().iterdir())
    assert names == ["_.._.._evil_[2J.safetensors", "stranger"]


def test_a_model_is_not_written_over_itself(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = create_backbone("ir_18", embedding_size=8, image_size=32, depths=(1, 1, 1, 1))
    save_file(net.state_dict(), "weights.safetensors")
    before = Path("weights.safetensors").read_bytes()
    for more in ((), ("-o", tmp_path / "weights.safetensors")):
        code, _, err = run("weights.safetensors", "--format", "safetensors", *more)
        assert code == 2
        assert "is what is exported: choose another name with --output" in err
    assert Path("weights.safetensors").read_bytes() == before


def test_another_far_than_the_file_states_has_to_be_measured(run, trained, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    run(trained, "--format", "safetensors", "-o", first, "--far", 0.1)
    code, _, err = run(first, "--format", "safetensors", "-o", second, "--far", 0.2)
    assert code == 2
    assert "--far needs pairs to measure on" in err
    assert run(first, "--format", "safetensors", "-o", second, "--far", 0.1)[0] == 0
    assert mf.load(second).threshold.far == 0.1

"""embed, compare, enroll, search, cluster: what they print and write, with a net that sees colours;
bad input ends in one clear line."""

import json
import sys
from pathlib import Path

import colour_net
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from manyface.cli import main
from manyface.gallery import Maker, PeopleIndex
from manyface.gallery import index as index_module
from manyface.model import FaceModel, Preprocessing, Threshold

SIDE = colour_net.SIDE
LIMIT = Threshold(0.8, far=0.01, tar=0.9, measured_on="lfw", num_same=10, num_different=1000)


class Net(torch.nn.Module):
    """float32 [B, 3, S, S] -> [B, D]: the colours of fields."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, pixels):
        return colour_net.embed(pixels.permute(0, 2, 3, 1) * 127.5 + 127.5)[:, : self.size]


def make_model(weights="w" * 32, *, size=48, threshold=LIMIT, net=None):
    return FaceModel(
        net or Net(size),
        name="colours",
        weights=weights,
        embedding_size=size,
        preprocessing=Preprocessing(SIDE, flip=False),
        device=torch.device("cpu"),
        threshold=threshold,
    )


@pytest.fixture
def models(monkeypatch, tmp_path):
    """Models by the names of their files, which are there; "net" has a threshold."""
    known = {
        "net": make_model(),
        "bare": make_model(threshold=None),
        "other": make_model("x" * 32),
        "small": make_model("y" * 32, size=24),
    }
    for name in known:
        (tmp_path / name).touch()
    monkeypatch.setattr("manyface.cli.using.open_model", lambda path, **options: known[path.name])
    monkeypatch.chdir(tmp_path)
    return known


def draw(path, person, seed, *, side=SIDE):
    """A noisy picture of the colours of `person`."""
    looks = np.random.default_rng(person).integers(40, 215, (4, 4, 3))
    noise = np.random.default_rng(1000 * person + seed).integers(-25, 25, looks.shape)
    pixels = np.clip(looks + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = pixels.repeat(side // 4, axis=0).repeat(side // 4, axis=1)
    Image.fromarray(whole).save(path)


@pytest.fixture
def people(tmp_path):
    """faces/ with six people of three photos."""
    for person in range(6):
        for photo in range(3):
            draw(tmp_path / "faces" / f"p{person}" / f"{photo}.png", person, photo)
    return tmp_path / "faces"


def run(capsys, *words, code=0):
    """What is printed; one line of error and no traceback where the code is not 0."""
    found = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert found == code, err
    if code:
        assert err.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in err
        assert "defect" not in err
        return err
    return out


def enroll(capsys, *words, code=0):
    return run(capsys, "enroll", *words, "--index", "people.index", code=code)


def test_embed_writes_every_image(models, people, tmp_path, capsys):
    out = run(capsys, "embed", "net", people, "-o", "e.safetensors")
    assert out == "Wrote e.safetensors: 18 images, 48 values each\n"
    found = load_file("e.safetensors")
    files = sorted(people.rglob("*.png"))
    np.testing.assert_allclose(found["embeddings"], models["net"].embed(files), atol=1e-6)
    run(capsys, "embed", "net", people, "-o", "e.npy", "--half")
    np.testing.assert_allclose(np.load("e.npy"), found["embeddings"], atol=2e-2)
    assert np.load("e.npy").dtype == np.float16
    assert sorted(each.name for each in tmp_path.glob("e.*")) == ["e.npy", "e.safetensors", "e.tsv"]


def test_embed_takes_loose_images_and_names_what_is_left_out(models, people, capsys):
    (people / "p0/1.png").write_bytes(b"none")
    out = run(capsys, "embed", "net", people / "p0", "-o", "e.safetensors")
    assert "2 images, 48 values each" in out
    assert "1 of 3 images are left out, see e.left_out.tsv (first: " in out
    run(capsys, "embed", "net", *sorted((people / "p1").iterdir()), "-o", "f.safetensors")
    assert len(load_file("f.safetensors")["embeddings"]) == 3


def test_embed_goes_on_after_a_stop(models, people, capsys, monkeypatch):
    run(capsys, "embed", "net", people, "-o", "whole.safetensors", "--batch-size", "4")
    calls = []
    forward = Net.forward

    def stops(self, pixels):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, pixels)

    monkeypatch.setattr(Net, "forward", stops)
    words = ("embed", "net", people, "-o", "e.safetensors", "--batch-size", "4")
    run(capsys, *words, code=130)
    run(capsys, *words)
    assert Path("whole.safetensors").read_bytes() == Path("e.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["faces", "-o", "e.npz"], "--format is one of"),
        (["faces", "-o", "faces/e.npy"], "lies in"),
        (["none", "-o", "e.npy"], "no such data"),
        (["faces/p0/0.png", "-o", "net.npy"], "is what is read"),
        (["empty", "-o", "e.npy"], "no images in"),
        (["text.png", "-o", "e.npy"], "none of the 1 images"),
        (["large.png", "-o", "e.npy"], "resized, with --resize"),
    ],
)
def test_embed_refuses(models, people, tmp_path, capsys, words, said):
    (tmp_path / "net.npy").symlink_to("net")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    draw(tmp_path / "large.png", 1, 1, side=32)
    assert said in run(capsys, "embed", "net", *words, code=2 if "--format" in said else 1)


def test_embed_resizes_when_told(models, tmp_path, capsys):
    draw(tmp_path / "large.png", 1, 1, side=32)
    run(capsys, "embed", "net", "large.png", "-o", "e.npy", code=1)
    run(capsys, "embed", "net", "large.png", "-o", "e.npy", "--resize")


def test_embed_with_a_net_that_overflows(models, people, capsys):
    class Broken(Net):
        def forward(self, pixels):
            return super().forward(pixels) * float("inf")

    models["net"] = make_model(net=Broken(48))
    assert "is not finite" in run(capsys, "embed", "net", people, "-o", "e.npy", code=1)


def test_compare_says_how_alike_and_decides_by_the_threshold(models, people, capsys):
    one, same, other = people / "p1/0.png", people / "p1/1.png", people / "p2/0.png"
    out = run(capsys, "compare", one, same, "--model", "net")
    assert out.startswith("cosine 0.9")
    assert "same person (threshold 0.800, FAR 0.01 on lfw)" in out
    assert "different people (threshold 0.800" in run(
        capsys, "compare", one, other, "--model", "net"
    )
    assert "threshold 0.999, given" in run(
        capsys, "compare", one, same, "--model", "net", "--threshold", "0.999"
    )
    assert "no decision: the model has no threshold" in run(
        capsys, "compare", one, same, "--model", "bare"
    )


def test_compare_needs_two_faces(models, people, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    words = ("compare", people / "p1/0.png", "text.png", "--model", "net")
    assert "text.png is left out" in run(capsys, *words, code=1)
    words = ("compare", people / "p1/0.png", "none.png", "--model", "net")
    assert "no such image: none.png" in run(capsys, *words, code=1)
    words = ("compare", people / "p1/0.png", people / "p1/1.png", "--model", "net")
    assert "a cosine" in run(capsys, *words, "--threshold", "3", code=1)


def test_enroll_and_search(models, people, tmp_path, capsys):
    out = enroll(capsys, people, "--model", "net")
    assert out == "Enrolled 18 images in people.index: version 1, 6 people, 18 embeddings\n"
    draw(tmp_path / "who/new.png", 3, 99)
    draw(tmp_path / "who/stranger.png", 77, 0)
    out = run(
        capsys, "search", "who", "--index", "people.index", "--top", 2, "--json", "found.json"
    )
    assert "who/new.png: p3\n" in out
    assert "who/stranger.png: unknown\n" in out
    assert "(below)" in out
    assert "threshold 0.800, FAR 0.01 on lfw" in out
    assert "among 6 people that takes about 6 of 100 strangers" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["person"] for each in found["images"]] == ["p3", "unknown"]
    assert [len(each["people"]) for each in found["images"]] == [2, 2]
    assert found["threshold"]["measured_on"] == "lfw"


def test_enroll_adds_replaces_and_removes(models, people, tmp_path, capsys):
    enroll(capsys, people, "--model", "net")
    draw(tmp_path / "more/p0/9.png", 0, 9)
    draw(tmp_path / "more/Ann Lee/1.png", 50, 1)
    assert "version 2, 7 people, 20 embeddings" in enroll(capsys, "more")
    assert "version 3, 7 people, 17 embeddings" in enroll(capsys, "more", "--replace")
    out = enroll(capsys, "--remove", "Ann Lee", "--remove", "p1")
    assert "Removed Ann Lee, p1 from people.index: version 4, 5 people, 13 embeddings" in out
    assert "nobody here is called 'Eve'" in enroll(capsys, "--remove", "Eve", code=1)
    assert "one of the two" in enroll(capsys, code=2)
    assert not list(tmp_path.glob("*.parts")) + list(tmp_path.glob(".people*"))


def test_a_stopped_enroll_leaves_the_index(models, people, tmp_path, capsys, monkeypatch):
    enroll(capsys, people, "--model", "net")
    before = (tmp_path / "people.index").read_bytes()
    draw(tmp_path / "more/Ann/1.png", 50, 1)

    def stop(self, pixels):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Net, "forward", stop)
        enroll(capsys, "more", code=130)
    assert (tmp_path / "people.index").read_bytes() == before
    assert "7 people" in enroll(capsys, "more")


def test_another_model_is_refused(models, people, tmp_path, capsys):
    enroll(capsys, people, "--model", "net")
    who = ("search", people / "p1/0.png", "--index", "people.index", "--model")
    assert "made with another model" in run(capsys, *who, "other", code=2)
    assert "48 values, the model gives 24" in run(capsys, *who, "small", code=2)
    assert "made with another model" in enroll(capsys, people, "--model", "other", code=2)
    (tmp_path / "net").rename(tmp_path / "moved")
    models["moved"] = models["net"]
    words = ("search", people / "p1/0.png", "--index", "people.index")
    assert "any more; say where it is with --model" in run(capsys, *words, code=2)
    assert "p1" in run(capsys, *words, "--model", "moved")


def test_an_index_that_is_damaged_or_not_there(models, people, tmp_path, capsys):
    who = ("search", people / "p1/0.png", "--index", "people.index")
    assert "make one with: manyface enroll" in run(capsys, *who, code=1)
    assert "give the model of a new one" in enroll(capsys, people, code=2)
    enroll(capsys, people, "--model", "net")
    whole = (tmp_path / "people.index").read_bytes()
    for damaged in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"hello"):
        (tmp_path / "people.index").write_bytes(damaged)
        assert "people.index" in run(capsys, *who, code=1)
        assert "people.index" in enroll(capsys, people, code=1)
        assert (tmp_path / "people.index").read_bytes() == damaged


def test_nobody_to_enroll_and_nobody_enrolled(models, people, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no images in empty" in enroll(capsys, "empty", "--model", "net", code=1)
    assert "expected one folder per person" in enroll(
        capsys, people / "p0", "--model", "net", code=1
    )
    PeopleIndex.new(Maker(models["net"].fingerprint, 48, str(tmp_path / "net"))).save(
        tmp_path / "people.index"
    )
    who = ("search", people / "p1/0.png", "--index", "people.index")
    assert "nobody is enrolled" in run(capsys, *who, code=1)


def test_search_without_faiss(models, people, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 10)
    enroll(capsys, people, "--model", "net")
    monkeypatch.setitem(sys.modules, "faiss", None)
    who = ("search", people / "p1/0.png", "--index", "people.index")
    assert "pip install 'manyface[faiss]'" in run(capsys, *who, code=1)
    assert "p1" in run(capsys, *who, "--exact")


def test_search_without_a_threshold(models, people, capsys):
    enroll(capsys, people, "--model", "bare")
    out = run(capsys, "search", people / "p1/0.png", "--index", "people.index")
    assert "p1/0.png\n" in out
    assert "no decision: the model has no threshold; give one with --threshold" in out


def test_cluster_finds_the_people(models, people, tmp_path, capsys):
    out = run(capsys, "cluster", people, "--model", "net", "-o", "groups.tsv")
    assert "18 images in 6 groups, 0 of one image (threshold 0.800, FAR 0.01 on lfw)" in out
    assert "BCubed  F 1.000  precision 1.000  recall 1.000" in out
    lines = (tmp_path / "groups.tsv").read_text().splitlines()
    assert lines[0] == "group\timage\tperson"
    assert lines[1].startswith("0\t")
    assert lines[1].endswith("faces/p0/0.png\tp0")
    assert len(lines) == 19


def test_cluster_of_loose_images_says_nothing_of_people(models, tmp_path, capsys):
    for person in range(3):
        draw(tmp_path / "photos" / f"{person}.png", person, 0)
    out = run(capsys, "cluster", "photos", "--model", "bare", "--threshold", 0.9, "-o", "g.tsv")
    assert "3 images in 3 groups, 3 of one image (threshold 0.900, given)" in out
    assert "people" not in out
    err = run(capsys, "cluster", "photos", "--model", "bare", "-o", "g.tsv", code=2)
    assert "give one with --threshold" in err


@pytest.mark.parametrize("width", ["40", "100"])
def test_names_and_numbers_fit_a_narrow_terminal(models, tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for person in range(3):
        draw(tmp_path / "faces" / f"p{person}" / "0.png", person, 0)
    enroll(capsys, "faces", "--model", "net")
    out = run(capsys, "search", tmp_path / "faces/p1/0.png", "--index", "people.index")
    assert all(len(line) <= int(width) for line in out.splitlines()[1:])
    assert "   1.000  p1\n" in out


def test_help_of_each_verb_fits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for verb in ("embed", "compare", "enroll", "search", "cluster"):
        assert "manyface" in run(capsys, verb, "--help")

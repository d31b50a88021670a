"""embed, compare, enroll, search, cluster: what they print and write, with a net that sees colours;
bad input ends in one clear line."""

import json
import sys
from pathlib import Path
from types import ModuleType

import colour_net
import fake_uniface
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from manyface.cli import main
from manyface.data.align import template
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
        (["large.png", "-o", "e.npy"], "can be resized (--resize"),
        (["faces", "-o", "e.npy", "--align", "nobody"], "no detector is called 'nobody'"),
        (["faces", "-o", "e.npy", "--align", "no_faces:find"], "cannot be imported"),
    ],
)
def test_embed_refuses(models, people, tmp_path, capsys, words, said):
    (tmp_path / "net.npy").symlink_to("net")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    draw(tmp_path / "large.png", 1, 1, side=32)
    code = 2 if "--format" in said or "--align" in words else 1
    assert said in run(capsys, "embed", "net", *words, code=code)


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
    assert "text.png is left out: no image, or none of" in run(capsys, *words, code=1)
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
    assert "pip install '.[faiss]' in manyface's folder" in run(capsys, *who, code=1)
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


LEFT, TOP, PHOTO = 30, 20, 192  # where the face of a photo lies, and the photo's side
LANDMARKS = template() + np.array([LEFT, TOP])


def take_photo(path, person, seed):
    """A photo of `person`: the face of `draw`, aligned, somewhere in it."""
    draw(path, person, seed, side=112)
    face = Image.open(path)
    photo = Image.new("RGB", (PHOTO, PHOTO))
    photo.paste(face, (LEFT, TOP))
    photo.save(path)


@pytest.fixture
def uniface(monkeypatch):
    """What it was asked; it finds a face in photos of that side alone."""
    asked = []

    def find(image):
        asked.append(image.shape)
        return [LANDMARKS] if image.shape[0] == PHOTO else []

    monkeypatch.setitem(sys.modules, "uniface", fake_uniface.module(find))
    return asked


@pytest.fixture
def photos(tmp_path):
    """photos/ with three people of two photos."""
    for person in range(3):
        for number in range(2):
            take_photo(tmp_path / f"photos/p{person}/{number}.png", person, number)
    return tmp_path / "photos"


def test_photos_are_searched_as_they_were_enrolled(models, photos, uniface, tmp_path, capsys):
    enroll(capsys, photos, "--model", "net", "--align", "uniface")
    take_photo(tmp_path / "who.png", 1, 9)
    assert main(["search", "who.png", "--index", "people.index"]) == 0
    out, err = capsys.readouterr()
    assert "who.png: p1" in out
    assert err == "photos are aligned by uniface, as the index began (--align none: not)\n"
    take_photo(tmp_path / "more/p1/9.png", 1, 9)
    assert "version 2, 3 people, 7 embeddings" in enroll(capsys, "more")
    assert len(uniface) == 8


def test_aligned_faces_in_an_index_that_began_with_photos(
    models, photos, uniface, tmp_path, capsys
):
    enroll(capsys, photos, "--model", "net", "--align", "uniface")
    draw(tmp_path / "who.png", 2, 9)
    words = ("search", "who.png", "--index", "people.index")
    assert "no face was found" in run(capsys, *words, code=1)
    assert "who.png: p2" in run(capsys, *words, "--align", "none")


def test_photos_in_an_index_that_began_with_aligned_faces(
    models, people, uniface, tmp_path, capsys
):
    enroll(capsys, people, "--model", "net")
    take_photo(tmp_path / "who.png", 2, 9)
    words = ("search", "who.png", "--index", "people.index")
    assert "192x192 pixels" in run(capsys, *words, code=1)
    assert "who.png: p2" in run(capsys, *words, "--align", "uniface")


def test_an_index_calls_no_function(models, photos, tmp_path, capsys, monkeypatch):
    """Who made it may have named any; the user has to."""
    mine, called = ModuleType("my_faces"), []

    def find(image):
        called.append(1)
        return [LANDMARKS], [1.0]

    mine.find = find
    monkeypatch.setitem(sys.modules, "my_faces", mine)
    enroll(capsys, photos, "--model", "net", "--align", "my_faces:find")
    del called[:]
    take_photo(tmp_path / "who.png", 1, 9)
    words = ("search", "who.png", "--index", "people.index")
    assert "say --align my_faces:find to call that" in run(capsys, *words, code=2)
    assert "say --align my_faces:find" in enroll(capsys, photos, code=2)
    assert not called
    assert "who.png: p1" in run(capsys, *words, "--align", "my_faces:find")
    assert called


def test_another_detector_than_the_first_is_said(models, photos, uniface, capsys, monkeypatch):
    enroll(capsys, photos, "--model", "net", "--align", "uniface")
    mine = ModuleType("my_faces")
    mine.find = lambda image: ([LANDMARKS], [1.0])
    monkeypatch.setitem(sys.modules, "my_faces", mine)
    photo = str(photos / "p1/0.png")
    assert main(["search", photo, "--index", "people.index", "--align", "my_faces:find"]) == 0
    assert "aligned by uniface, not by my_faces:find" in capsys.readouterr().err


def test_faces_are_resized_as_they_were_enrolled(models, tmp_path, capsys):
    for person in range(3):
        draw(tmp_path / f"large/p{person}/0.png", person, 0, side=32)
    draw(tmp_path / "who.png", 1, 9, side=32)
    enroll(capsys, "large", "--model", "net", "--resize")
    words = ["search", "who.png", "--index", "people.index"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "who.png: p1" in out
    assert "resized, as the index began (--no-resize: not)" in err
    assert "32x32 pixels" in run(capsys, *words, "--no-resize", code=1)


def test_an_index_behind_a_link_is_changed_where_it_lies(models, people, tmp_path, capsys):
    (tmp_path / "disk").mkdir()
    (tmp_path / "people.index").symlink_to("disk/faces.index")
    enroll(capsys, people, "--model", "net")
    enroll(capsys, "--remove", "p1")
    assert (tmp_path / "people.index").is_symlink()
    assert PeopleIndex.open(tmp_path / "disk/faces.index").version == 2
    assert [each.name for each in (tmp_path / "disk").iterdir()] == ["faces.index"]


def test_names_that_would_write_on_the_terminal(models, tmp_path, capsys):
    """People and files are called as whoever made them liked."""
    evil = "a\nb\t\x1b[2J\u202ec"
    draw(tmp_path / "faces" / evil / "0.png", 1, 0)
    draw(tmp_path / "faces" / "Zoë" / "0.png", 2, 0)
    draw(tmp_path / f"{evil}.png", 1, 1)
    enroll(capsys, "faces", "--model", "net")
    out = run(capsys, "search", f"{evil}.png", "--index", "people.index")
    shown = r"a\nb\t\x1b[2J\u202ec"
    assert out.splitlines()[0] == f"{shown}.png: {shown}"
    assert "Zoë" in out
    run(capsys, "cluster", "faces", "--model", "net", "-o", "groups.tsv")
    lines = (tmp_path / "groups.tsv").read_text().splitlines()
    assert [line.count("\t") for line in lines] == [2, 2, 2]
    assert lines[2].endswith(f"\t{shown}")
    decomposed = "Zoe\u0308"  # as a Mac writes it
    out = enroll(capsys, "--remove", evil, code=0)
    assert "\x1b" not in out
    assert "is called 'Zoe'" in enroll(capsys, "--remove", "Zoe", code=1)
    assert "Removed Zoë from" in enroll(capsys, "--remove", decomposed)
    assert "\x1b" not in run(capsys, "search", f"{evil}.jpg", "--index", "people.index", code=1)


@pytest.mark.parametrize("count", [1, 5])
def test_cluster_of_one_image_and_of_equal_ones(models, tmp_path, capsys, count):
    for number in range(count):
        draw(tmp_path / "photos" / f"{number}.png", 1, 0)
    out = run(capsys, "cluster", "photos", "--model", "net", "-o", "g.tsv", "--threshold", "0.99")
    assert f"{count} images in 1 groups" in out


def test_more_people_than_there_are_may_be_asked_for(models, people, capsys):
    enroll(capsys, people, "--model", "net")
    words = ("search", people / "p1/0.png", "--index", "people.index", "--top", 10**20)
    assert sum("p" in line for line in run(capsys, *words).splitlines()[1:7]) == 6


def test_an_index_that_everybody_has_left(models, people, capsys):
    enroll(capsys, people, "--model", "net")
    enroll(capsys, *(word for k in range(6) for word in ("--remove", f"p{k}")))
    words = ("search", people / "p1/0.png", "--index", "people.index")
    assert "nobody is enrolled" in run(capsys, *words, code=1)
    assert "version 3, 6 people" in enroll(capsys, people)

"""`manyface evaluate --on`: one table, one JSON, one page; stopped and gone on; what is refused."""

import errno
import json
import os
from pathlib import Path

import colour_net
import numpy as np
import pytest
import torch
from PIL import Image

from manyface.base.errors import WriteError
from manyface.base.files import held
from manyface.cli import main
from manyface.data.bin_file import VerificationSet, write_bin
from manyface.evaluate import kept_features
from manyface.evaluate.sets import everyone
from manyface.model import FaceModel, Preprocessing

SIDE = colour_net.SIDE
PEOPLE, PHOTOS = 16, 4


class Net(torch.nn.Module):
    """The colours of fields, [B, 3, S, S] -> [B, 48]; counts what it sees, and may stop."""

    def __init__(self):
        super().__init__()
        self.seen, self.stops_after = 0, 10**9

    def forward(self, pixels):
        if self.seen >= self.stops_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        return 5 * colour_net.embed(pixels.permute(0, 2, 3, 1) * 127.5 + 127.5)


@pytest.fixture
def net(monkeypatch, tmp_path):
    """Of the model that is at any path."""
    made = Net()
    model = FaceModel(
        made, name="colours", weights="w" * 32, embedding_size=48,
        preprocessing=Preprocessing(SIDE, flip=False), device=torch.device("cpu"),
    )  # fmt: skip
    monkeypatch.setattr("manyface.cli.evaluate.open_model", lambda path, **options: model)
    monkeypatch.setattr(kept_features, "_PART", 16)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def faces(tmp_path):
    """Sixteen people of four photos, their pairs, and a .bin of these."""
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        look = rng.integers(60, 195, (4, 4, 3))
        folder = tmp_path / "faces" / f"p{person:02}"
        folder.mkdir(parents=True)
        for photo in range(1, PHOTOS + 1):
            noisy = np.clip(look + rng.integers(-110, 110, look.shape), 0, 255).astype(np.uint8)
            pixels = noisy.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
            Image.fromarray(pixels).save(folder / f"{photo}.png")
    same = [(f"p{i:02}/1.png", f"p{i:02}/2.png") for i in range(PEOPLE)]
    other = [(f"p{i:02}/1.png", f"p{(i + 3) % PEOPLE:02}/3.png") for i in range(PEOPLE)]
    lines = [f"{a}\t{b}\t1\n" for a, b in same] + [f"{a}\t{b}\t0\n" for a, b in other]
    (tmp_path / "faces/pairs.tsv").write_text("".join(lines))
    images = [(tmp_path / "faces" / path).read_bytes() for pair in same + other for path in pair]
    write_bin(tmp_path / "lfw.bin", VerificationSet(images, np.arange(32) < 16))
    return tmp_path / "faces"


def gallery(root: Path, faces: Path) -> Path:
    for part, photos, people in (("gallery", (1,), 12), ("probe", (2, 3), 16)):
        for person in range(people):
            target = root / part / f"p{person:02}"
            target.mkdir(parents=True)
            for photo in photos:
                (target / f"{photo}.png").write_bytes(
                    (faces / f"p{person:02}" / f"{photo}.png").read_bytes()
                )
    return root


def test_one_table_one_json_one_page(net, faces, tmp_path, capsys):
    searched = gallery(tmp_path / "people", faces)
    sets = ["lfw.bin", "pairs=faces/pairs.tsv", f"all={faces}", f"gallery={searched}"]
    assert main(["evaluate", "net", "--on", *sets, "--output", "out"]) == 0
    printed = capsys.readouterr().out
    table = printed[: printed.index("lfw: ")]
    assert max(map(len, table.splitlines())) <= 80
    assert printed.count("95 % interval") >= 1
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    named = {each["name"]: each for each in scores["sets"]}
    assert named.keys() == {"lfw", "pairs", "faces", "people"}
    assert named["lfw"]["path"] == "lfw.bin"
    assert named["people"]["path"] == str(searched)
    page = (tmp_path / "out/report.html").read_text()
    for text in ("lfw", "pairs", "rank-1", "tar@far=0.001", "DET"):
        assert text in page
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "report.html",
        "scores.json",
    ]


def test_an_image_of_many_pairs_is_embedded_once(net, faces, capsys):
    assert main(["evaluate", "net", "--on", "lfw.bin"]) == 0
    assert net.seen == 3 * PEOPLE  # of 64 images in the file


def test_a_stopped_evaluation_goes_on(net, faces, tmp_path, capsys):
    words = ["evaluate", "net", "--on", f"all={faces}", "lfw.bin", "--batch-size", "8"]
    net.stops_after = 40
    assert main([*words, "--output", "out"]) == 130
    assert not (tmp_path / "out/scores.json").exists()
    seen, net.stops_after = net.seen, 10**9
    assert main([*words, "--output", "out"]) == 0
    assert net.seen - seen == PEOPLE * PHOTOS + 3 * PEOPLE - 32  # two whole parts of 16
    assert main([*words, "--output", "whole"]) == 0
    capsys.readouterr()
    both = [(tmp_path / place / "scores.json").read_bytes() for place in ("out", "whole")]
    assert both[0] == both[1]
    assert not (tmp_path / "out/.features").exists()


def test_a_stopped_evaluation_goes_on_after_another_one(net, faces, tmp_path, capsys):
    words = ["evaluate", "net", "--output", "out", "--batch-size", "8", "--on"]
    net.stops_after = 40
    assert main([*words, f"all={faces}"]) == 130
    net.stops_after = 10**9
    assert main([*words, "lfw.bin"]) == 0
    net.seen = 0
    assert main([*words, f"all={faces}"]) == 0
    assert net.seen == PEOPLE * PHOTOS - 32
    assert not (tmp_path / "out/.features").exists()
    capsys.readouterr()


def test_one_command_at_a_time_judges_a_set(net, faces, tmp_path, capsys):
    words = ["evaluate", "net", "--output", "out", "--on"]
    with held(tmp_path / "out/.features/faces"):
        assert main([*words, "lfw.bin"]) == 0
        assert main([*words, "lfw.bin", f"all={faces}"]) == 1
        assert "another process is writing out/.features/faces" in capsys.readouterr().err
    assert main([*words, f"all={faces}"]) == 0
    capsys.readouterr()


def test_parts_of_changed_images_or_another_batch_size_are_no_help(net, faces, tmp_path, capsys):
    words = ["evaluate", "net", "--on", f"all={faces}", "--output", "out", "--batch-size"]

    def seen_after(batch_size: str) -> int:
        net.seen, net.stops_after = 0, 56
        assert main([*words, batch_size]) == 130
        return net.seen

    assert seen_after("8") == 56
    assert seen_after("4") == 56  # all anew
    net.seen = 0
    Image.new("RGB", (SIDE, SIDE), "red").save(faces / "p00/1.png")  # first of the first part
    net.stops_after = 10**9
    assert main([*words, "4"]) == 0
    assert net.seen == 16 + 16  # that part, and the one that was stopped
    capsys.readouterr()


def test_a_damaged_part_is_made_anew(net, faces, tmp_path, capsys):
    words = ["evaluate", "net", "--on", f"all={faces}", "--output", "out", "--batch-size", "8"]
    net.stops_after = 56
    assert main(words) == 130
    (first, second, _) = sorted((tmp_path / "out/.features/faces/0").glob("*.part"))
    content = bytearray(first.read_bytes())
    content[-3] ^= 1
    first.write_bytes(content)
    second.write_bytes(b"")
    net.seen, net.stops_after = 0, 10**9
    assert main(words) == 0
    assert net.seen == 48  # all but the third
    capsys.readouterr()


def test_a_place_that_cannot_be_written_is_said_before_the_work(net, faces, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert main(["evaluate", "net", "--on", "lfw.bin", "--output", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "out" in line
    assert net.seen == 0


def test_a_full_disk_is_said_and_nothing_is_lost(net, faces, tmp_path, capsys, monkeypatch):
    def full(text, output):
        raise WriteError(output, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    words = ["evaluate", "net", "--on", "lfw.bin", "--output", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("manyface.report.document.write_page", full)
        assert main(words) == 1
    out, err = capsys.readouterr()
    assert "accuracy" in out  # the table is there
    assert "No space left" in err
    net.seen = 0
    assert main(words) == 0
    assert net.seen == 0  # features were kept


@pytest.mark.parametrize(
    "options, message",
    [
        (["--subgroups", "g.tsv"], "--subgroups is for sets of the kinds pairs, all; none"),
        (["--images", "faces"], "--images is for sets of the kinds pairs; none"),
    ],
)
def test_options_that_no_set_uses(net, faces, tmp_path, capsys, options, message):
    (tmp_path / "g.tsv").write_text("p01\tnorth\n")
    assert main(["evaluate", "net", "--on", "lfw.bin", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, name",
    [
        (["--fars", "1e-3"], "--fars"),
        (["--output", "x"], "--output"),
        (["--by-quality"], "--by-quality"),
        (["--half"], "--half"),
    ],
)
def test_options_that_mean_nothing_without_a_set(net, capsys, options, name):
    assert main(["evaluate", "run", *options]) == 2
    err = capsys.readouterr().err
    assert f"{name} is for sets that --on names" in err
    assert "--set evaluation" in err


def test_sets_of_one_name_are_told_apart(net, faces, tmp_path, capsys):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/lfw.bin").write_bytes((tmp_path / "lfw.bin").read_bytes())
    assert main(["evaluate", "net", "--on", "lfw.bin", "old/lfw.bin", "--output", "out"]) == 0
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert [each["name"] for each in scores["sets"]] == ["bin=lfw.bin", "bin=old/lfw.bin"]
    assert main(["evaluate", "net", "--on", "lfw.bin", "lfw.bin"]) == 2
    assert "is named 2 times" in capsys.readouterr().err


def test_fars_that_need_too_much_are_said_before_the_work(net, faces, capsys, monkeypatch):
    monkeypatch.setattr(everyone, "_USUAL_KEPT", 4)
    assert main(["evaluate", "net", "--on", f"all={faces}"]) == 0
    assert "tar@far=0.001 was left out: it needs" in capsys.readouterr().out.replace("\n", " ")
    net.seen = 0
    monkeypatch.setattr("manyface.evaluate.tails.check_kept.__kwdefaults__", {
        "max_genuine": 10, "max_impostors": 10
    })  # fmt: skip
    assert main(["evaluate", "net", "--on", f"all={faces}", "--fars", "0.1"]) == 1
    assert "genuine pairs, whose scores are all kept" in capsys.readouterr().err
    assert net.seen == 0


def test_half_precision_is_near(net, faces, tmp_path, capsys):
    for options in ([], ["--half"]):
        place = f"out{len(options)}"
        assert main(["evaluate", "net", "--on", f"all={faces}", *options, "--output", place]) == 0
    capsys.readouterr()
    found = [
        json.loads((tmp_path / place / "scores.json").read_text())["sets"][0]["scores"][0]["value"]
        for place in ("out0", "out1")
    ]
    assert found[0] == pytest.approx(found[1], abs=0.05)


def test_megaface_and_its_distractors(net, faces, tmp_path, capsys):
    root = gallery(tmp_path / "mega", faces)
    (root / "gallery").rename(root / "distractors")
    for person in range(12):  # distractors are nobody's
        (root / "distractors" / f"p{person:02}").rename(root / "distractors" / f"d{person:02}")
    words = ["evaluate", "net", "--on", f"megaface={root}", "--output", "out"]
    assert main([*words, "--fars", "0.1"]) == 0
    (found,) = json.loads((tmp_path / "out/scores.json").read_text())["sets"]
    assert {each["name"] for each in found["scores"]} == {"rank-1", "rank-10", "tar@far=0.1"}
    assert "12 distractors" in found["protocol"]
    capsys.readouterr()


def test_tinyface_from_its_folders(net, faces, tmp_path, capsys):
    for part, photos, people in (
        ("Probe", (2, 3), range(8)),
        ("Gallery_Match", (1,), range(8)),
        ("Gallery_Distractor", (1, 2), range(8, 16)),
    ):
        folder = tmp_path / "tiny/Testing_Set" / part
        folder.mkdir(parents=True)
        for person in people:
            for photo in photos:
                data = (faces / f"p{person:02}" / f"{photo}.png").read_bytes()
                (folder / f"{person}_{photo}.png").write_bytes(data)
    assert main(["evaluate", "net", "--on", "tinyface=tiny", "--output", "out"]) == 0
    (found,) = json.loads((tmp_path / "out/scores.json").read_text())["sets"]
    assert "16 probes, 24 in the gallery" in found["protocol"]
    values = {each["name"]: each["value"] for each in found["scores"]}
    assert 0.2 < values["rank-1"] <= values["rank-5"] <= values["rank-20"] <= 1
    capsys.readouterr()


def test_a_checkpoint_is_left_as_it_is(net, faces, tmp_path, capsys):
    """Files in it would make it a damaged one."""
    checkpoint = tmp_path / "run/checkpoints/step-00000004"
    checkpoint.mkdir(parents=True)
    (tmp_path / "run/config.toml").touch()
    words = ["--on", "lfw.bin"]
    for given, place in (
        (["run"], "run/evaluation"),
        (["run", "--checkpoint", "best"], "run/evaluation/best"),
        (["run/checkpoints/step-00000004"], "run/evaluation/step-00000004"),
        (["weights"], "evaluation"),
    ):
        (tmp_path / "weights").mkdir(exist_ok=True)
        assert main(["evaluate", given[0], *words, *given[1:]]) == 0
        assert (tmp_path / place / "scores.json").is_file()
    assert list(checkpoint.iterdir()) == []
    assert list((tmp_path / "weights").iterdir()) == []
    capsys.readouterr()


def test_the_page_says_what_its_rates_are(net, faces, tmp_path, capsys):
    searched = gallery(tmp_path / "people", faces)
    assert main(["evaluate", "net", "--on", f"gallery={searched}", "--output", "out"]) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert "false positive identification rate" in page
    assert "false accept rate" not in page
    assert "8 impostor trials can show no FPIR below 0.125" in capsys.readouterr().out

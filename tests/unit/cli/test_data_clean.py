"""`manyface data clean`: what it prints and writes, with a net that sees colours."""

import os
from pathlib import Path

import numpy as np
import pytest
from colour_net import SIDE, ColourNet
from PIL import Image

from manyface.cli import main
from manyface.config import parse_config
from manyface.train.centers import TrainedCenters
from manyface.train.run import train


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 people of five photos: p3 and p30 are one, p7's first photo is of p8."""
    monkeypatch.setattr("manyface.model.load", lambda *args, **rest: ColourNet())
    rng = np.random.default_rng(0)
    looks = rng.integers(40, 215, (40, 4, 4, 3))
    looks[30] = looks[3]
    for person in range(40):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for photo in range(5):
            look = looks[8] if (person, photo) == (7, 0) else looks[person]
            noisy = np.clip(look + rng.integers(-25, 25, look.shape), 0, 255).astype(np.uint8)
            pixels = noisy.repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
            Image.fromarray(pixels).save(folder / f"{photo}.png")
    return tmp_path / "faces"


def test_conflicts_are_printed_and_written(faces, tmp_path, capsys):
    out = {name: tmp_path / name for name in ("page.html", "keep.txt", "joins.tsv", "cases.tsv")}
    words = ["data", "clean", str(faces), "--model", "run"]
    options = zip(("--page", "--keep", "--joins", "--report"), out.values(), strict=True)
    assert main([*words, *(str(word) for pair in options for word in pair)]) == 3
    printed = capsys.readouterr().out
    assert "1  one person under two labels" in printed
    assert "1  images under the wrong label" in printed
    assert out["joins.tsv"].read_text().startswith("p3\tp30\t0.9")
    assert out["keep.txt"].read_text().splitlines()[1].startswith("p7\t0.png\t")
    kinds = [line.split("\t")[0] for line in out["cases.tsv"].read_text().splitlines()]
    assert kinds == ["kind", "split", "wrong"]
    page = out["page.html"].read_text()
    assert page.count("<img") == 3 + 3 + 1 + 3 + 3
    assert "p7/0.png" in page


def test_limits_can_be_given(faces, capsys):
    words = ["data", "clean", str(faces), "--model", "run"]
    assert main([*words, "--same-person", "1.1", "--belongs", "1.1"]) == 3  # a stranger now
    printed = capsys.readouterr().out
    assert "0  one person under two labels (cosine 1.100)" in printed
    assert "1  images like nobody" in printed


def test_too_few_images_to_measure(tmp_path, monkeypatch, capsys, faces):
    for person in range(30):
        for photo in faces.joinpath(f"p{person}").glob("[2-4].png"):
            photo.unlink()
    words = ["data", "clean", str(faces), "--model", "run"]
    assert main(words) == 1
    assert "give a limit of your own" in capsys.readouterr().err
    main([*words, "--same-person", "0.9"])
    assert "1  one person under two labels" in capsys.readouterr().out


def test_odd_names_are_written_so_that_they_can_be_read(faces, tmp_path, capsys):
    """TAB, line ends and bytes that are no text, in names of people and of files."""
    names = {"p3": "p\t3", "p30": "p\n30\u2028", "p8": "p\\8"}
    for old, new in names.items():
        (faces / old).rename(faces / new)
    (faces / "p7" / "0.png").rename(faces / "p7" / os.fsdecode(b"caf\xe9.png"))
    joins, report, keep = (tmp_path / name for name in ("joins", "report", "keep"))
    words = ["data", "clean", str(faces), "--model", "run", "--joins", str(joins)]
    assert main([*words, "--report", str(report), "--keep", str(keep)]) == 3
    rows = [line.split(b"\t") for line in report.read_bytes().split(b"\n")[1:-1]]
    assert [len(row) for row in rows] == [6, 6]
    assert rows[1][1].endswith(b"p7/caf\xe9.png")
    assert b"p\\\\8" in rows[1]
    out = ["--out", str(tmp_path / "all.rec")]
    assert main(["data", "merge", str(faces), "--joins", str(joins), *out]) == 0
    assert "39 people (1 joined)" in capsys.readouterr().out


def test_nothing_is_written_over_what_is_read_or_twice(faces, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    lines = [f"faces/{path.parent.name}/{path.name}\t{path.parent.name}\n"
             for path in sorted(faces.rglob("*.png"))]  # fmt: skip
    listed.write_text("".join(lines))
    before, joins = listed.read_text(), tmp_path / "joins"
    joins.write_text("p1\tp2\n")
    for words in (
        *(["clean", option] for option in ("--page", "--keep", "--joins", "--report")),
        *(["check", option] for option in ("--report", "--keep", "--json")),
        ["inspect", "--json"],
    ):
        model = ["--model", "run"] if words[0] == "clean" else []
        assert main(["data", words[0], str(listed), *model, words[1], str(listed)]) == 1
        assert "is what is read" in capsys.readouterr().err
    for target in (listed, joins):
        out = ["--out", str(tmp_path / "x.rec"), "--joins", str(joins), "--report", str(target)]
        assert main(["data", "merge", str(listed), *out]) == 1
        assert "is what is read" in capsys.readouterr().err
    twice = str(tmp_path / "twice")
    assert main(["data", "check", str(listed), "--report", twice, "--keep", twice]) == 1
    assert "to be written twice" in capsys.readouterr().err
    assert (listed.read_text(), joins.read_text()) == (before, "p1\tp2\n")


@pytest.mark.parametrize("place", ["file/out", "folder", "pipe"])
def test_what_cannot_be_written_is_found_before_hours_are_spent(
    faces, tmp_path, capsys, monkeypatch, place
):
    monkeypatch.setattr("manyface.data.tools.check.check_records", pytest.fail)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert main(["data", "check", str(faces), "--keep", str(tmp_path / place)]) == 1
    assert f"cannot write {tmp_path / place}: " in capsys.readouterr().err


def test_a_keep_list_goes_into_a_folder_that_is_made(faces, tmp_path):
    main(["data", "check", str(faces), "--keep", str(tmp_path / "new" / "folder" / "keep")])
    assert (tmp_path / "new" / "folder" / "keep").read_text().startswith("# manyface keep-list")


def test_a_report_on_a_full_disk(faces, capsys):
    assert main(["data", "check", str(faces), "--report", "/dev/full"]) == 1
    assert "cannot write /dev/full: No space left" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    """A run of one step on 40 people."""
    words = ["data.path=synthetic", "data.image_size=32", "data.synthetic.num_identities=40",
             "data.synthetic.images_per_identity=3", "backbone.name=tiny", "schedule.steps=1",
             "backbone.embedding_size=16", "train.batch_size=8", "evaluation.num_pairs=40",
             f"run.directory={tmp_path / 'runs'}", "run.name=few"]  # fmt: skip
    train(parse_config("", words))
    return tmp_path / "runs/few"


def test_class_centers_of_a_run(run, tmp_path, capsys, monkeypatch):
    capsys.readouterr()
    read = TrainedCenters.read

    def alike(self, start, stop):
        rows = read(self, start, stop).clone()
        if start <= 11 < stop:
            rows[11 - start] = 2 * read(self, 3, 4)[0]
        return rows

    monkeypatch.setattr(TrainedCenters, "read", alike)
    out = {name: tmp_path / name for name in ("page.html", "joins.tsv", "cases.tsv")}
    options = zip(("--page", "--joins", "--report"), out.values(), strict=True)
    words = [str(word) for pair in options for word in pair]
    assert main(["data", "clean", str(run), *words, "--same-person", "0.99"]) == 3
    assert "1  pairs of labels with alike class centers (cosine 0.990)" in capsys.readouterr().out
    (joined,) = out["joins.tsv"].read_text().splitlines()
    one, other, cosine = joined.split("\t")
    assert cosine == "1.0000"
    assert out["cases.tsv"].read_text().splitlines()[1] == f"split\t\t{one}\t{other}\t\t{cosine}"
    assert out["page.html"].read_text().count("<img") == 6
    assert main(["data", "clean", str(run), "--same-person", "1.1"]) == 0
    assert "nothing among them is unusual" in capsys.readouterr().err
    assert main(["data", "clean", str(run), "--model", "x"]) == 2
    assert "no image is looked at; leave out --model" in capsys.readouterr().err


def test_a_set_needs_a_net_that_looks(faces, capsys):
    assert main(["data", "clean", str(faces)]) == 2
    assert "--model is missing" in capsys.readouterr().err

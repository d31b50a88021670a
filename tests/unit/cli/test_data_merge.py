"""`manyface data merge`: sets written as one."""

from pathlib import Path

import numpy as np
import pytest
from colour_net import SIDE, ColourNet
from PIL import Image

from manyface.cli import main
from manyface.data.records import open_records


def write_set(folder: Path, looks: dict[str, int], *, photos: int = 4, seed: int = 0) -> Path:
    """People whose photos are random fields of the seed of their look, with some noise."""
    for name, look in looks.items():
        fields = np.random.default_rng(look).integers(40, 215, (4, 4, 3))
        noise = np.random.default_rng((seed, look))
        (folder / name).mkdir(parents=True)
        for photo in range(photos):
            noisy = np.clip(fields + noise.integers(-25, 25, fields.shape), 0, 255)
            pixels = noisy.astype(np.uint8).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
            Image.fromarray(pixels).save(folder / name / f"{photo}.png")
    return folder


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """30 people and 25 others, of whom x0 to x4 are p10 to p14, and p2 is called so in both."""
    monkeypatch.setattr("manyface.model.load", lambda *args, **rest: ColourNet())
    theirs = {f"x{i}": 10 + i if i < 5 else 100 + i for i in range(24)} | {"p2": 2}
    return [
        write_set(tmp_path / "one", {f"p{i}": i for i in range(30)}),
        write_set(tmp_path / "two", theirs, seed=1),
    ]


def merged(sets, tmp_path, *options):
    words = ["data", "merge", *map(str, sets), "--out", str(tmp_path / "all"), *options]
    assert main(words) == 0
    records = open_records(tmp_path / "all")
    return dict(zip(records.identity_names, np.diff(records.first_images).tolist(), strict=True))


def test_nobody_is_joined_unless_asked(sets, tmp_path, capsys):
    counts = merged(sets, tmp_path)
    assert len(counts) == 55
    assert counts["p2 (1)"] == counts["p2 (2)"] == 4
    assert "220 images of 55 people (0 joined)" in capsys.readouterr().out


def test_by_name(sets, tmp_path):
    counts = merged(sets, tmp_path, "--same-names")
    assert (len(counts), counts["p2"]) == (54, 8)
    ours = {(sets[0] / "p2" / f"{i}.png").read_bytes() for i in range(4)}
    theirs = {(sets[1] / "p2" / f"{i}.png").read_bytes() for i in range(4)}
    found = {path.read_bytes() for path in (tmp_path / "all" / "p2").iterdir()}
    assert found == ours | theirs


def test_by_a_net(sets, tmp_path, capsys):
    report = tmp_path / "joined.tsv"
    counts = merged(sets, tmp_path, "--model", "run", "--report", str(report))
    assert {name for name, count in counts.items() if count == 8} == {
        "p2", *(f"p{10 + i}" for i in range(5))
    }  # fmt: skip
    lines = [line.split("\t") for line in report.read_text().splitlines()]
    assert {(line[1], line[3]) for line in lines} == {
        ("p2", "p2"), *((f"p{10 + i}", f"x{i}") for i in range(5))
    }  # fmt: skip
    assert "6 people of one are in two" in capsys.readouterr().out


def test_by_a_list_within_one_set(sets, tmp_path):
    joins = tmp_path / "joins.tsv"
    joins.write_text("p3\tp5\t0.99\n")
    counts = merged(sets[:1], tmp_path, "--joins", str(joins))
    assert (len(counts), counts["p3"]) == (29, 8)


def test_a_list_of_other_people(sets, tmp_path, capsys):
    joins = tmp_path / "joins.tsv"
    joins.write_text("p3\tnobody\n")
    words = ["data", "merge", str(sets[0]), "--out", str(tmp_path / "all"), "--joins", str(joins)]
    assert main(words) == 1
    assert "nobody called 'nobody'" in capsys.readouterr().err


def test_one_set_alone(sets, tmp_path, capsys):
    assert main(["data", "merge", str(sets[0]), "--out", str(tmp_path / "all")]) == 2
    assert "give two" in capsys.readouterr().err


def test_the_same_set_twice(sets, tmp_path, capsys):
    words = [
        "data",
        "merge",
        str(sets[0]),
        str(sets[0] / ".." / "one"),
        "--out",
        str(tmp_path / "x"),
    ]
    assert main(words) == 2
    assert "a set is named twice" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

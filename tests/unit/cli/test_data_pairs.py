"""`manyface data pairs`: makes sets that evaluation reads, and shows those of others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyface.cli import main
from manyface.data import open_records, read_bin

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = main(["data", "pairs", *map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for person in "ABCDEF":
        (tmp_path / "faces" / person).mkdir(parents=True)
        for number in range(1, 5):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / person / f"{number}.jpg")
    return tmp_path / "faces"


def test_draws_looks_and_unpacks(run: Run, faces: Path, tmp_path: Path) -> None:
    options = ("--num-pairs", 24, "--folds", 2)
    made = tmp_path / "new/mine.bin"
    code, out, _ = run(faces, made, *options)
    assert (code, out) == (0, f"Wrote {made}: 12 same and 12 different pairs of 6 people\n")
    bytes_of_first = made.read_bytes()
    run(faces, made, *options)
    assert made.read_bytes() == bytes_of_first, "the same seed, the same pairs"
    run(faces, made, *options, "--seed", 1)
    assert made.read_bytes() != bytes_of_first

    code, out, _ = run(made)
    assert code == 0
    assert "24 pairs, 12 same and 12 different" in out
    assert "8x8: 48" in out
    assert "unreadable 0" in out
    code, out, _ = run(made, tmp_path / "unpacked", "--folds", 2)
    assert (
        out.splitlines()[-1]
        == f"Wrote {tmp_path / 'unpacked'} and {tmp_path / 'unpacked'}/pairs.txt"
    )
    assert len(open_records(tmp_path / "unpacked")) == 48

    code, out, _ = run(tmp_path / "unpacked", tmp_path / "again.bin", "--pairs", "pairs.txt")
    assert code == 0
    assert read_bin(tmp_path / "again.bin").images == read_bin(made).images


def test_a_list(run: Run, faces: Path, tmp_path: Path) -> None:
    assert run(faces, tmp_path / "mine.txt", "--num-pairs", 24, "--folds", 3)[0] == 0
    lines = (tmp_path / "mine.txt").read_text().splitlines()
    assert lines[0] == "3\t4"
    assert len(lines) == 25


def test_the_real_one(run: Run) -> None:
    path = Path(__file__).parents[4] / "shared/data/format-samples/arcface_paddle-test_tipc"
    if not path.is_dir():
        pytest.skip(f"no real files here ({path})")
    code, out, _ = run(path / "small_lfw.bin")
    assert code == 0
    assert "10 pairs, 10 same and 0 different" in out
    assert "112x112: 20" in out


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["faces"], 2, "give DST"),
        (["faces", "x.npz"], 2, "not x.npz"),
        (["faces", "x.bin", "--num-pairs", "7"], 1, "a multiple of 2 x folds"),
        (["faces", "x.bin", "--num-pairs", "4000"], 1, "use fewer"),
        (["faces", "x.bin", "--pairs", "absent.txt"], 1, "absent.txt"),
        (["absent", "x.bin"], 1, "no such data: absent"),
        (["evil.bin"], 1, "holds os.system; only lists"),
        (["evil.bin", "--pairs", "x"], 2, "has pairs of its own"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run, faces: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(faces.parent)
    Path("evil.bin").write_bytes(b"\x80\x02cos\nsystem\n(U\x08touch badtR.")
    found, _, error = run(*words)
    assert found == code, error
    assert says in error
    assert len(error.splitlines()) == 1
    assert sorted(each.name for each in faces.parent.iterdir()) == ["evil.bin", "faces"]


def test_neither_set_nor_list_is_overwritten(run: Run, faces: Path, tmp_path: Path) -> None:
    images = [f"faces/{path.parent.name}/{path.name}\t{path.parent.name}" for path in
              sorted(faces.rglob("*.jpg"))]  # fmt: skip
    listed = tmp_path / "set.txt"
    listed.write_text("\n".join(images))
    options = ("--num-pairs", 24, "--folds", 2)
    assert run(faces, faces / "pairs.txt", *options)[0] == 0, "a place where it is looked for"
    code, _, error = run(listed, listed, *options)
    assert (code, "is what is read" in error) == (1, True)
    code, _, error = run(faces, faces / "pairs.txt", "--pairs", "pairs.txt")
    assert (code, "is what is read" in error) == (1, True)
    assert listed.read_text() == "\n".join(images)

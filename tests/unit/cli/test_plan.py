"""`manyface plan`: a table for every width, a file with all figures, errors in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manyface.cli.program import main

RECIPE = """
run.device = "cpu"
run.threads = 1
data.image_size = 32
data.synthetic.num_identities = 300
backbone = {name = "small", embedding_size = 16, stem_width = 4, widths = [8], depths = [0]}
train.batch_size = 8
"""
Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Outcome]:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)

    def call(*words: object) -> Outcome:
        code = main(["plan", str(recipe), *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_table_and_file(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, _ = run("--json", tmp_path / "new" / "plan.json")
    assert code == 0
    assert "full: 300 identities, 300 classes scored, batch 8" in out
    found = json.loads((tmp_path / "new" / "plan.json").read_text())
    assert found["fits"] is True
    assert found["bytes"]["rows"] == 300 * 16 * 4


def test_narrow_terminal(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = run("--gpus", 2)
    assert max(map(len, out.splitlines())) <= 50
    assert "memory of one rank" in out


def test_many_gpus(run: Callable[..., Outcome], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    code, out, _ = run(
        *("--gpus", 512, "--identities", 10**9, "--set", "train.batch_size=4096", "--json", file)
    )
    assert code == 0
    for said in (
        "512 x h100 in 64 machines",
        "embedding gradients",
        "--shutdown-timeout",
        "Assumed",
    ):
        assert said in out
    found = json.loads(file.read_text())
    (labels,) = (each for each in found["collectives"] if each["name"] == "labels")
    assert (labels["passed"], labels["moved"]) == (64, 511 * 64)
    assert found["rows_of_rank"] == 1_953_125
    assert found["saving"]["of_all"] > 10**9 * 16 * 4 * 2


def test_what_does_not_fit(run: Callable[..., Outcome]) -> None:
    code, out, _ = run("--gpus", 1, "--gpu", "rtx4090", "--identities", 900_000_000)
    assert code == 0
    assert "DOES NOT FIT" in out
    assert "it would fit with any one of these" in out
    assert "--gpus" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "0"], "expected --gpus from 1 to 65,536, got 0"),
        (["--gpus", "8"], "train.batch_size is 8 images of all 8 ranks"),
        (["--gpus", "8", "--network-gbit", "0"], "expected --network-gbit above 0, got 0"),
        (["--gpus", "8", "--disk-gb", "nan"], "--disk-gb"),
        (["--gpu", "b200"], "expected --gpus, how many of --gpu b200"),
        (["--gpus", "1", "--gpu", "h1"], "no data sheet of GPU 'h1'"),
        (["--identities", "1"], "expected --identities of at least 2, got 1"),
        (["--set", "data.path=/no/such"], "data.path"),
        (["--set", "head.slots=3"], "slots"),
        (["--json", "/proc/none/x.json"], "/proc/none"),
    ],
)
def test_bad_input_is_one_line(run: Callable[..., Outcome], words: list[str], said: str) -> None:
    code, _, err = run(*words)
    assert code != 0
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1

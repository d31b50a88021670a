"""`manyface bench train`: combinations, a table for every width, a file, errors in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manyface.bench import process
from manyface.bench.process import MeasurementError
from manyface.cli.program import main
from manyface.cli.train_table import print_trainings

TINY = ("--set", "data.image_size=32", "--set", "backbone.embedding_size=16", "--classes", "40")
Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*words: object) -> Outcome:
        code = main(["bench", "train", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def figures(images_per_second: float = 123.4, **more: object) -> dict:
    seconds = {"median": 1.5, "min": 1.0, "max": 2.0}
    return {
        "fits": True,
        "settings": {
            "image_size": 112,
            "channels_last": True,
            "compile": False,
            "fused": True,
            "steps": 10,
        },
        "images_per_second": images_per_second,
        "images": 64,
        "num_identities": 1_000_000,
        "step_seconds": seconds,
        "shares": {"loader": 0.01, "backbone": 0.8, "head": 0.1, "update": 0.04, "rows": 0.05},
        "loader": {
            "on": True,
            "workers": 1,
            "seconds_per_image": {"decode": 6e-5, "augmentation": 3e-5},
        },
        "precision": "bf16",
        "resident_bytes": 2**30,
        "peak_extra_bytes": 2**30,
        "peak_device_bytes": None,
        **more,
    }


def test_table_and_file(run: Callable[..., Outcome], tmp_path: Path) -> None:
    file = tmp_path / "new/figures.json"
    words = ("--backbone", "tiny", "--head", "partial", "--batch", 8, "--steps", 1)
    code, out, err = run(*TINY, *words, "--precision", "fp32", "--no-loader", "--json", file)
    assert code == 0
    assert out.startswith("training       images/s")
    assert "\ntiny partial 8 " in out
    assert "batches were made before the first step" in out
    assert err.splitlines() == [
        f"[1/1] tiny partial 8: {doing}" for doing in ("building", "the loader alone", "done")
    ]
    result = json.loads(file.read_text())
    assert result["provenance"].keys() >= {"date", "device", "commit", "torch", "manyface"}
    found = result["trainings"]["tiny partial 8"]
    assert found["num_identities"] == 40
    assert found["precision"] == "fp32"
    assert found["settings"]["loader"] is False
    assert sum(found["shares"].values()) == pytest.approx(1)


def test_every_combination_once(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def die(words: tuple[str, str, str], *, report: Callable[[str], None]) -> dict:
        asked.append(words[1])
        raise MeasurementError("its process was killed")

    monkeypatch.setattr(process, "in_own_process", die)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[data]\npath = "absent.tar"\npeople = "some.txt"\nmin_images_per_identity = 3\n'
        '[head]\nsample_rate = 0.2\n[evaluation]\npairs = "pairs.txt"\n'
    )
    words = ["--head", "full", "--head", "partial", "--batch", 8, "--batch", 8, "--batch", 16]
    code, out, _ = run(recipe, *TINY, "--backbone", "tiny", *words, "--compile")
    assert code == 1
    names = [f"tiny {head} {batch}" for head in ("full", "partial") for batch in (8, 16)]
    assert [line.split(" died")[0].strip() for line in out.splitlines()] == names
    assert len(asked) == len(names)
    assert all("compile = true" in text and 'path = "synthetic"' in text for text in asked)
    assert "sample_rate = 0.2" in asked[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backbone", "r19"], "unknown backbone 'r19' (nearest: 'r18')"),
        (["--batch", "0"], "'--batch': Input should be greater than or equal to 2"),
        (["--batch", "many"], "--batch"),
        (["--classes", "1"], "--classes"),
        (["--head", "fulll"], "head.method: got \"fulll\", expected one of 'full', 'partial'"),
        (["--precision", "fp16"], "run.precision"),
        (["--device", "tpu"], "run.device"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--threads", "0"], "--threads"),
        (["--set", "backbone.nam=r18"], "backbone.nam"),
        (["absent.toml"], "absent.toml: cannot read the recipe"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Callable[..., Outcome], words: list[str], said: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_broken_recipe_is_one_line(run: Callable[..., Outcome], tmp_path: Path) -> None:
    recipe = tmp_path / "broken.toml"
    recipe.write_text("[data\n")
    code, out, err = run(recipe)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {recipe}: not valid TOML")


def test_data_that_are_not_there_are_a_line(run: Callable[..., Outcome]) -> None:
    code, out, _ = run("--set", "data.path=/absent.tar", "--backbone", "tiny")
    assert code == 1
    assert "tiny full 64 died: data.path: " in " ".join(out.split())
    assert "Traceback" not in out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    on_gpu = figures(12_345.6, peak_device_bytes=60 * 2**30)
    gib = 2**30
    print_trainings(
        {
            "r50 full 128": figures(),
            "r50 partial 128": on_gpu,
            "r100 f2c 64": {"fits": False, "needed_bytes": 229 * gib, "available_bytes": 21 * gib},
            "mbf virtual 8": {"error": "RuntimeError: " + "word " * 30},
        }
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for said in (
        "r50 full 128 123.4",
        "does not fit yet: needs 229.0 GiB, 21.0 GiB free",
        "died: RuntimeError: word",
        "1,000,000 identities, 112 pixels, bf16, channels_last, fused on",
        "an image takes 0.09 ms of a worker (decode 0.06 ms, augmentation 0.03 ms)",
        "only wait is time of the step",
    ):
        assert said in words
    heading = out.splitlines()[0].split()
    for name, least in (("net", 0), ("wait", 44), ("update", 52), ("rows", 58), ("memory", 80)):
        assert (name in heading) == (width >= least)
    if width >= 80:
        assert "60.0 GiB" in words

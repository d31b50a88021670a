"""`manyface bench head`: a table for every width, a file with all figures, errors in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manyface.bench import side_by_side
from manyface.bench.process import MeasurementError
from manyface.bench.shape import Shape
from manyface.cli.head_table import format_seconds, print_heads
from manyface.cli.program import main

TINY = ("--classes", "300", "--batch", "8", "--dim", "16", "--steps", "1")
Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*words: object) -> Outcome:
        code = main(["bench", "head", *map(str, words)])
        return code, *capsys.readouterr()

    return call


def test_table_and_file(run: Callable[..., Outcome], tmp_path: Path) -> None:
    file = tmp_path / "new/figures.json"
    code, out, err = run(*TINY, "--method", "f2c", "--method", "f2c", "--json", file)
    assert code == 0
    assert "f2c: 2 passes of 4 probes, 8 distinct" in out
    assert err.splitlines() == [
        f"[1/1] f2c: {doing}" for doing in ("building", "warming up", "done")
    ]
    result = json.loads(file.read_text())
    assert result["provenance"].keys() >= {"date", "device", "commit", "torch", "manyface"}
    assert result["shape"]["classes"] == 300
    assert result["methods"]["f2c"]["ratio"]["time"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--method", "fulll"],
            "unknown method 'fulll'; expected one of full, partial, f2c, eager",
        ),
        (["--classes", "0"], "classes must be at least 1, got 0"),
        (["--classes", "many"], "--classes"),
        (["--batch", "9"], "batch must be even"),
        (["--sample-rate", "2"], "sample_rate must be above 0 and at most 1"),
        (["--dtype", "bf16"], "dtype must be one of float32, float64"),
        (["--steps", "0"], "steps must be at least 1"),
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


def test_a_file_that_cannot_be_written_is_said_before_the_work(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    code, out, err = run(*TINY, "--json", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: cannot write {tmp_path}: ")
    assert err.count("\n") == 1


def test_a_method_that_dies_is_a_line(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> dict:
        raise MeasurementError("its process was killed")

    monkeypatch.setattr(side_by_side, "in_own_process", die)
    code, out, err = run(*TINY, "--method", "full")
    assert (code, out) == (1, "full   died: its process was killed\n")
    assert err == "[1/1] full: died\n"


def test_what_does_not_fit_is_in_the_table(run: Callable[..., Outcome]) -> None:
    code, out, err = run("--classes", 2 * 10**9, "--method", "full", "--method", "eager")
    assert code == 0
    assert [line[:37] for line in out.splitlines()] == [
        "full   does not fit yet: needs 7.5 Ti",
        "eager  does not fit yet: needs 22.4 T",
    ]
    assert err.count("does not fit yet") == 2


def figures(seconds: float, **more: object) -> dict:
    return {
        "fits": True,
        "step_seconds": {"median": seconds, "min": seconds, "max": seconds},
        "resident_bytes": 987 * 2**20,
        "peak_extra_bytes": 123 * 2**20,
        "products": 3,
        "gemm_fraction": 0.456,
        "ratio": {"against": "eager", "time": 0.43, "extra_memory": 0.1, "memory": 0.031},
        **more,
    }


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    plan = {"median": 0.0007, "min": 0.0007, "max": 0.0007}
    pool = figures(0.0417, passes=2, probes_per_pass=64, plan_seconds=plan)
    methods = {
        "full": figures(1234.5),
        "f2c": pool,
        "huge": {"fits": False, "needed_bytes": 229 * 2**30, "available_bytes": 21 * 2**30},
        "broken": {"fits": True, "error": "RuntimeError: " + "word " * 30},
    }
    shape = Shape(classes=10_000_000).as_dict()
    print_heads({"methods": methods, "shape": shape, "product": {"flop_per_second": 1e11}})
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    words = " ".join(out.split())
    for said in (
        "1234 s 123.0 MiB",
        "41.7 ms",
        "does not fit yet: needs 229.0 GiB, 21.0 GiB free",
        "died: RuntimeError: word",
        "10,000,000 classes, batch 128, dim 512, float32",
        "planning (0.7 ms, a loader thread's work) is not in step",
    ):
        assert said in words
    for heading, least in (("held", 44), ("gemm", 52), ("memory", 60)):
        assert (heading in out.splitlines()[0]) == (width >= least)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(123.4, "123 s"), (1.234, "1.23 s"), (0.5, "500 ms"), (0.0412, "41.2 ms"), (4e-4, "0.4 ms")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text

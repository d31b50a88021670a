"""`manyface bench head`: a table for every width, a file with all figures, errors in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manyface.bench import process
from manyface.bench.process import MeasurementError
from manyface.bench.shape import Shape
from manyface.cli.head_table import print_heads
from manyface.cli.measured_table import format_seconds
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
    assert result["methods"]["f2c"]["ratio"]["f2c"]["time"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--method", "fulll"],
            "unknown method 'fulll'; expected one of full, partial, full_bf16",
        ),
        (["--classes", "0"], "classes must be at least 1, got 0"),
        (["--classes", "many"], "--classes"),
        (["--batch", "9"], "batch must be even"),
        (["--sample-rate", "2"], "sample_rate must be above 0 and at most 1"),
        (["--dtype", "bf16"], "dtype must be one of float32, float64"),
        (["--rival", "eager"], "--rival takes arcface_torch=DIR, a checkout"),
        (["--rival", "arcface=."], "got arcface=."),
        (["--rival", "arcface_torch="], "got arcface_torch="),
        (["--rival", "arcface_torch=/absent"], "no folder /absent; --rival arcface_torch=DIR"),
        (["--rival", "arcface_torch=/"], "no partial_fc_v2.py with losses.py in /, nor in"),
        (["--method", "arcface_torch"], "name a checkout, --rival arcface_torch=DIR"),
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


def test_the_rival_joins_the_methods(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("partial_fc_v2.py", "losses.py"):
        (tmp_path / name).write_text("raise ImportError('no apex')")
    monkeypatch.setenv("COLUMNS", "300")
    rival = f"arcface_torch={tmp_path}"
    code, out, _ = run(*TINY, "--method", "full", "--rival", rival)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["full", "arcface_torch"]
    assert f"died: cannot use {tmp_path}/partial_fc_v2.py: ImportError: no apex;" in out


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

    monkeypatch.setattr(process, "in_own_process", die)
    code, out, err = run(*TINY, "--method", "full")
    assert (code, out) == (1, "full   died: its process was killed\n")
    assert err == "[1/1] full: died\n"


def test_what_does_not_fit_is_in_the_table(run: Callable[..., Outcome]) -> None:
    code, out, err = run("--classes", 2 * 10**9, "--method", "full", "--method", "eager")
    assert code == 0
    assert [line[:37] for line in out.splitlines()] == [
        "full   does not fit yet: needs 7.5 Ti",
        "eager  does not fit yet: needs 18.7 T",
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
        "ratio": {"eager": {"time": 0.43, "extra_memory": 0.1, "memory": 0.031}},
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
        "linear_cross_entropy": figures(1.0),
        "broken": {"fits": True, "error": "RuntimeError: " + "word " * 30},
    }
    shape = Shape(classes=10_000_000).as_dict()
    product = {"flop_per_second": {"float32": 1e11}}
    print_heads({"methods": methods, "shape": shape, "product": product, "against": "eager"})
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
    for heading, least in (("held", 50), ("gemm", 58), ("memory", 70)):
        assert (heading in out.splitlines()[0]) == (width >= least)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(123.4, "123 s"), (1.234, "1.23 s"), (0.5, "500 ms"), (0.0412, "41.2 ms"), (4e-4, "0.4 ms")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text

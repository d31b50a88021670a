"""Methods in processes of their own, set in relation; what does not fit has its bytes entered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from manyface.bench import METHODS, Job, Shape, compare, methods_here, process, side_by_side
from manyface.bench.process import MeasurementError, in_own_process

SMALL = Shape(classes=300, batch=8, dim=16, steps=1)


SAMPLED = ("partial", "partial_bf16", "f2c", "partial_fc_2020")
RIVALS = [name for name in methods_here(SMALL) if METHODS[name].rival]


def silent(name: str, doing: str) -> None:
    pass


def words(method: str) -> tuple[str, str, str]:
    return "head", method, json.dumps(SMALL.as_dict())


def jobs(*names: str) -> list[Job]:
    return [Job(name, name, SMALL) for name in names]


@pytest.fixture(scope="module")
def measured() -> dict:
    return compare(jobs(*methods_here(SMALL)), report=silent)


@pytest.mark.slow
@pytest.mark.parametrize("name", methods_here(SMALL))
def test_all_figures_are_there(measured: dict, name: str) -> None:
    found = measured["methods"][name]
    assert found["fits"] is True
    assert found["active_rows"] == (30 if name in SAMPLED else 300)
    assert found.keys() >= {"step_seconds", "peak_extra_bytes", "products", "gemm_fraction"}
    assert found["resident_bytes"] + found["peak_extra_bytes"] <= found["needed_bytes"]
    assert list(found["ratio"]) == RIVALS
    assert measured["against"] == "eager"
    operations = 3 * 2 * 8 * found["active_rows"] * 16
    rate = max(
        each["product_flop_per_second"]
        for each in measured["methods"].values()
        if each["product_dtype"] == found["product_dtype"]
    )
    assert measured["product"]["size"] == 2048
    assert measured["product"]["flop_per_second"][found["product_dtype"]] == rate
    share = operations / found["step_seconds"]["median"] / rate
    assert found["gemm_fraction"] == pytest.approx(share)


class Fake:
    """Figures without a process: method -> (seconds, held, extra); a text is why it died."""

    def __init__(self, **methods: tuple[float, int, int] | str) -> None:
        self.methods = methods

    def __call__(self, words: tuple[str, str, str], *, report: Callable[[str], None]) -> dict:
        kind, name, options = words
        assert kind == "head"
        shape = Shape(**json.loads(options))
        found = self.methods[name]
        if isinstance(found, str):
            raise MeasurementError(found)
        seconds, held, extra = found
        spread = {"median": seconds, "min": seconds, "max": seconds}
        rate = 1e9 if name == "full" else 5e8  # the best one counts
        return {
            "step_seconds": spread,
            "resident_bytes": held,
            "peak_extra_bytes": extra,
            "product_dtype": METHODS[name].product_dtype or shape.dtype,
            "product_flop_per_second": rate,
        }


def use(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    monkeypatch.setattr(process, "in_own_process", fake)


def test_ratios_against_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(full=(1.0, 300_000, 100_000), eager=(4.0, 200_000, 400_000))
    use(monkeypatch, fake)
    found = compare(jobs("full", "eager"), report=silent)["methods"]
    expected = {"time": 0.25, "extra_memory": 0.25, "memory": pytest.approx(2 / 3)}
    assert found["full"]["ratio"] == {"eager": expected}
    ones = {"time": 1.0, "extra_memory": 1.0, "memory": 1.0}
    assert found["eager"]["ratio"] == {"eager": ones}
    assert found["full"]["gemm_fraction"] == pytest.approx(3 * 2 * 8 * 300 * 16 / 1.0 / 1e9)


def test_ratios_against_each_rival_and_rates_by_dtype(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("full", "eager", "arcface_torch", "arcface_torch_bf16")
    seconds = dict(zip(names, (1.0, 4.0, 8.0, 2.0), strict=True))
    use(monkeypatch, Fake(**{name: (each, 10**6, 10**6) for name, each in seconds.items()}))
    shape = Shape(classes=300, batch=8, dim=16, steps=1, checkout=str(checkout))
    result = compare([Job(name, name, shape) for name in names], report=silent)
    times = {name: each["time"] for name, each in result["methods"]["full"]["ratio"].items()}
    assert times == {"eager": 0.25, "arcface_torch": 0.125, "arcface_torch_bf16": 0.5}
    assert result["against"] == "arcface_torch"
    assert result["product"]["flop_per_second"] == {"float32": 1e9, "bfloat16": 5e8}
    half = result["methods"]["arcface_torch_bf16"]
    assert half["gemm_fraction"] == pytest.approx(3 * 2 * 8 * 30 * 16 / 2.0 / 5e8)


@pytest.mark.parametrize("asked", [("partial", "full"), ("eager", "partial", "full")])
def test_ratios_against_the_first_that_ran(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    runs = {"partial": (1.0, 10**6, 10**6), "full": (3.0, 10**6, 10**6)}
    use(monkeypatch, Fake(**runs, eager="RuntimeError: x"))
    result = compare(jobs(*asked), report=silent)
    found = result["methods"]
    assert result["against"] == "partial"
    assert found["full"]["ratio"].keys() == {"partial"}
    assert found["full"]["ratio"]["partial"]["time"] == 3.0
    if "eager" in asked:
        assert found["eager"]["error"] == "RuntimeError: x"
        assert "ratio" not in found["eager"]


def test_what_does_not_fit_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> dict:
        raise AssertionError

    monkeypatch.setattr(process, "in_own_process", never)
    monkeypatch.setattr(side_by_side, "available_bytes", lambda: 1000)
    told: list[tuple[str, str]] = []
    found = compare(jobs("full"), report=lambda *said: told.append(said))
    needed = METHODS["full"].needs(SMALL).total
    assert found["methods"]["full"] == {
        "fits": False,
        "needed_bytes": needed,
        "available_bytes": 1000,
    }
    assert found["product"] is found["against"] is None
    assert told == [("full", "does not fit yet")]


def test_what_a_method_raises_is_a_line() -> None:
    with pytest.raises(MeasurementError, match=r"^unknown method 'absent'; expected one of full"):
        in_own_process(words("absent"), report=print)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -KILL $$", "killed, as happens where memory runs out"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("echo first >&2; echo 'Error: last' >&2; exit 3", "exit code 3: Error: last"),
        ("exit 0", "exit code 0: it said nothing"),
        ("""echo '{"error": "too big"}'""", "too big"),
    ],
)
def test_how_a_process_died_is_said(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(script, tmp_path, monkeypatch)
    with pytest.raises(MeasurementError, match=why):
        in_own_process(words("full"), report=print)


def test_what_a_process_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """echo hello; echo '{"doing": "building"}'; echo '{"found": {"a": 1}}'"""
    pretend(script, tmp_path, monkeypatch)
    told: list[str] = []
    assert in_own_process(words("full"), report=told.append) == {"a": 1}
    assert told == ["building"]


def pretend(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell script in place of the interpreter."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))

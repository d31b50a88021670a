"""R12 for verification sets: whatever a .bin holds, nothing of it runs, and little time is lost.

Sizes: 4,000 cases with each change, 200,000 with the soak (times FUZZ_SHARE). Time is that of the
processor, so a machine that is busy with other things changes nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_pickles import MARKER, bombs, good_sets, harmful

from manyface.base.errors import DataError
from manyface.data.bin_file import parse_bin

SHARE = float(os.environ.get("FUZZ_SHARE", "1"))
PROGRAM = Path(__file__).with_name("hostile_pickles.py")
SOURCES = Path(__file__).parents[2] / "src"
# Far-fetched ways to write sets that are good all the same.
GOOD_BOMBS = {"one image a thousand times"}


def fuzz(count: int, seed: int, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(count), str(seed)],
        cwd=folder,
        env={"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def assert_harmless(outcome: dict[str, Any], folder: Path) -> None:
    assert outcome["tracebacks"] == []
    assert outcome["events"] == []
    assert outcome["slowest"] < 2, "seconds of the processor"
    assert outcome["peak_mib"] < 512
    assert outcome["read"] > 18, "good sets are read"
    assert outcome["refused"] > 50
    assert list(folder.iterdir()) == []


def test_thousands_of_mutations(tmp_path: Path) -> None:
    assert_harmless(fuzz(4_000, 0, tmp_path), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_thousands_of_mutations(tmp_path: Path, seed: int) -> None:
    outcome = fuzz(round(20_000 * SHARE), seed, tmp_path)
    print(
        f"FIGURE fuzz bin: {outcome['read'] + outcome['refused']:,} cases, slowest "
        f"{outcome['slowest']:.2f} s, {outcome['peak_mib']:.0f} MiB"
    )
    assert_harmless(outcome, tmp_path)


@pytest.mark.parametrize("data", good_sets())
def test_the_sets_that_are_mutated_are_good(data: bytes) -> None:
    assert len(parse_bin(data, "x")) in (1, 3)


@pytest.mark.parametrize("data", harmful())
def test_nothing_is_run(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"holds .*nothing in it is run"):
        parse_bin(data, "x")
    assert list(tmp_path.iterdir()) == []


def test_python_would_have_run_it(tmp_path: Path) -> None:
    """And the hook would have seen it: else the tests before this one prove nothing."""
    program = (
        "import pickle, hostile_pickles\n"
        "events = hostile_pickles.watch()\n"
        "pickle.loads(hostile_pickles.harmful()[0])\n"
        "print(events)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROGRAM.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [each.name for each in tmp_path.iterdir()] == [MARKER]
    for name in ("pickle.find_class", "compile", "exec", "open"):
        assert name in done.stdout


@pytest.mark.parametrize("name", sorted(bombs(10).keys() - GOOD_BOMBS))
def test_bombs_do_not_go_off(name: str) -> None:
    with pytest.raises(DataError):
        parse_bin(bombs()[name], "x")


def test_one_image_may_be_there_many_times() -> None:
    found = parse_bin(bombs()["one image a thousand times"], "x")
    assert len({id(image) for image in found.images}) == 1, "and is kept once"

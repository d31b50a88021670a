"""The examples run as they stand, with few steps."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    "name, needs",
    [
        ("minimal", None),
        ("fine_tune", None),
        ("with_lightning", "lightning"),
        ("with_accelerate", "accelerate"),
    ],
)
def test_example(name: str, needs: str | None) -> None:
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--steps", "4"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "loss" in run.stdout


def test_every_example_is_tested() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"minimal", "fine_tune", "with_lightning", "with_accelerate"}


def test_minimal_is_one_page() -> None:
    assert len((EXAMPLES / "minimal.py").read_text().splitlines()) <= 66

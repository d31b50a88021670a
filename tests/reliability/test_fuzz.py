"""R12: damaged files of every kind are a set with less in it or one clear error, in little time and
memory, and nothing is run or written.

A fiftieth of the cases with each change, all of them in the soak; FUZZ_SHARE=0.1 makes it a tenth.
(.bin files: test_pickles.py. LMDB and Parquet, which other libraries write: tests/unit/data.)
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzzing.py")
SIZES = {
    "recordio": 1_000_000,
    "tar": 50_000,
    "images": 200_000,
    "config": 100_000,
    "checkpoint": 100_000,
}
PER_CHANGE, PART = 50, 5_000
SHARE = float(os.environ.get("FUZZ_SHARE", "1"))
MAX_MEMORY = 512 << 20


def fuzz(kind: str, folder: Path, first: int, count: int) -> None:
    words = [sys.executable, "-W", "error", PROGRAM, kind, folder, first, count]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    print(
        f"FIGURE fuzz {kind}: {facts['cases']:,} cases, {facts['num_failures']} failures, slowest "
        f"{facts['slowest']:.2f} s, {facts['max_rss'] / 2**20:.0f} MiB"
    )
    assert facts["cases"] == count
    assert facts["num_failures"] == 0, json.dumps(facts["failures"], indent=2)
    assert facts["max_rss"] <= MAX_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "first"),
    [(kind, first) for kind, size in SIZES.items() for first in range(0, size // PER_CHANGE, PART)],
)
def test_damaged_files(tmp_path: Path, kind: str, first: int) -> None:
    fuzz(kind, tmp_path, first, min(PART, SIZES[kind] // PER_CHANGE - first))


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", SIZES)
def test_damaged_files_for_long(tmp_path: Path, kind: str) -> None:
    fuzz(kind, tmp_path, SIZES[kind] // PER_CHANGE, round(SHARE * SIZES[kind]))

"""Damaged .rec, .idx and .lst files: a set with less in it or one clear error, in little time and
memory, and nothing run or written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_recordio.py")
PER_CHANGE, PARTS = 20_000, 4
MAX_MEMORY = 512 << 20
SOAK = 1_000_000


def fuzz(folder: Path, first: int, count: int) -> None:
    words = [sys.executable, "-W", "error", PROGRAM, folder, first, count]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["cases"] == count
    assert facts["num_failures"] == 0, json.dumps(facts["failures"], indent=2)
    assert facts["max_rss"] <= MAX_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files(tmp_path, part):
    share = PER_CHANGE // PARTS
    fuzz(tmp_path, part * share, share)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_damaged_files_for_long(tmp_path):
    fuzz(tmp_path, PER_CHANGE, SOAK)

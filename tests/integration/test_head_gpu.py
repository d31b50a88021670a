"""The benchmark for GPUs can be tried without one, and says so where it cannot measure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks/head_gpu.py"
TINY = ("--device", "cpu", "--classes", "600", "--batch", "8", "--dim", "8", "--steps", "1")


def benchmark(*words: str) -> str:
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure this GPU")
def test_without_a_gpu_it_says_so() -> None:
    assert "skipped: head_gpu.py needs a CUDA device" in benchmark()


def test_all_cases_run(tmp_path: Path) -> None:
    benchmark(*TINY, "--out", str(tmp_path / "result.json"))
    cases = json.loads((tmp_path / "result.json").read_text())["cases"]
    assert len({name.rpartition(", ")[0] for name in cases}) == 3
    assert all(len(case["losses"]) == 4 for case in cases.values())
    for name, case in cases.items():
        plain = cases[f"{name.rpartition(', ')[0]}, torch"]
        assert case["losses"] == pytest.approx(plain["losses"], rel=0.02), "kernels as plain torch"

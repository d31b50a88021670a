"""Kernels compile for GPUs that are not there: to PTX and on, by triton's own assembler."""

import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

PROGRAM = """
import os
os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from manyface.kernels.gpu.numerators import numerators_kernel
from manyface.kernels.gpu.row_update import row_update_kernel

FLOATS = dict.fromkeys(("inverse", "shift", "sums", "gradient", "factor"), "*fp32")
INTEGERS = {"own": "*i64", "ids": "*i64"}
INTEGERS |= dict.fromkeys(("row_words", "velocity_words", "columns"), "*i32")
SCALARS = dict.fromkeys(("num_samples", "num_rows", "dim", "num_tiles"), "i32")
SCALARS |= dict.fromkeys(("lr", "momentum", "weight_decay"), "fp32")

def compiles(kernel, rows, **constants):
    known = FLOATS | INTEGERS | SCALARS | dict.fromkeys(constants, "constexpr")
    signature = {name: known.get(name, f"*{rows}") for name in kernel.arg_names}
    for capability in (80, 90):
        made = triton.compile(
            ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32)
        )
        assert "tf32" not in made.asm["ptx"]

for rows in ("fp32", "bf16"):
    tile = {"SAMPLES": 64, "CLASSES": 64, "DEPTH": 32, "WIDENS": False}
    compiles(numerators_kernel, rows, HAS_SHIFT=True, **tile)
    rounds = rows == "bf16"
    compiles(row_update_kernel, rows, HAS_VELOCITY=True, ROUNDS=rounds, WIDTH=512)
    compiles(row_update_kernel, rows, HAS_VELOCITY=False, ROUNDS=rounds, WIDTH=8)
"""


def test_kernels_compile() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

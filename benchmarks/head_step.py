"""One step of a full FC head, forward + backward + update: time and peak extra memory.

    python benchmarks/head_step.py [--classes 200000 --batch 512 --dim 512 --steps 5]

Methods, each in a process of its own: `streamed` (ours), `eager` (the same loss with all logits in
memory, autograd, torch.optim.SGD over all rows). Memory is the peak of anonymous + shared resident
bytes above what is held before the first step, when the table, its momentum and the batch are
resident and written; page cache is not in it. Time is the median of the steps after one warm-up.
`--sweep 512 1024 ...` measures ours with other chunk sizes too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

import manyface as mf
from manyface.observe.memory import MemoryMeter, resident_bytes
from manyface.softmax import dense_margin_softmax
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

METHODS = ("streamed", "eager")
SHAPE = ("classes", "batch", "dim", "steps", "threads", "chunk_size")


def main() -> None:
    """Run every method in its own process and write the result file."""
    options = _options().parse_args()
    if options.method:
        print(json.dumps(measure(options)))
        return
    shape = {key: getattr(options, key) for key in SHAPE}
    figures = {method: _in_own_process(method, shape) for method in METHODS}
    ours, eager = figures["streamed"], figures["eager"]
    ratios = {
        "time_of_eager": eager["step_seconds"]["median"] / ours["step_seconds"]["median"],
        "memory_of_eager": eager["peak_extra_bytes"] / ours["peak_extra_bytes"],
    }
    result = {"shape": shape, "methods": figures, "ratios": ratios}
    if options.sweep:
        result["streamed_by_chunk_size"] = {
            str(size): _in_own_process("streamed", {**shape, "chunk_size": size})
            for size in options.sweep
        }
    path = write_result("head_step", result, options.json)
    print(json.dumps(result, indent=2), f"\nwritten: {path}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one method in this process."""
    torch.set_num_threads(options.threads)
    draw = torch.Generator().manual_seed(0)
    embeddings = torch.randn(options.batch, options.dim, generator=draw).requires_grad_()
    labels = torch.randint(options.classes, (options.batch,), generator=draw)
    step = {"streamed": _streamed, "eager": _eager}[options.method](options)
    before = resident_bytes()
    with MemoryMeter(interval_seconds=0.002) as meter:
        seconds = [_timed(step, embeddings, labels) for _ in range(options.steps + 1)][1:]
        peak = meter.peak_bytes - before
    return {
        "step_seconds": {
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
        },
        "peak_extra_bytes": peak,
        "resident_bytes": before,
    }


def _streamed(options: argparse.Namespace) -> Callable[[torch.Tensor, torch.Tensor], None]:
    head = mf.FullFC(
        num_classes=options.classes,
        dim=options.dim,
        margin=mf.CosFace(0.4),
        chunk_size=options.chunk_size,
    )
    head.centers.velocity.fill_(0.0)  # written, so that its pages are resident

    def step(embeddings: torch.Tensor, labels: torch.Tensor) -> None:
        head(embeddings, labels).backward()
        head.step(0.1)

    return step


def _eager(options: argparse.Namespace) -> Callable[[torch.Tensor, torch.Tensor], None]:
    head = mf.FullFC(num_classes=options.classes, dim=options.dim, margin=mf.CosFace(0.4))
    rows = torch.nn.Parameter(head.centers.weight)
    optimizer = torch.optim.SGD([rows], lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.state[rows]["momentum_buffer"] = torch.full_like(rows, 0.0).detach()

    def step(embeddings: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        margin = mf.CosFace(0.4)
        dense_margin_softmax(embeddings, rows, labels, margin=margin, scale=64.0).backward()
        optimizer.step()

    return step


def _timed(step: Callable[..., None], embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    embeddings.grad = None
    start = time.perf_counter()
    step(embeddings, labels)
    return time.perf_counter() - start


def _in_own_process(method: str, shape: dict[str, int]) -> dict[str, Any]:
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in shape.items()]
    run = subprocess.run(
        [sys.executable, __file__, "--method", method, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, Any] = json.loads(run.stdout)
    return figures


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk-size", type=int, default=DEFAULT_CHUNK_SIZE)
    parser.add_argument("--sweep", type=int, nargs="*", help="further chunk sizes of ours")
    parser.add_argument("--json", type=Path, help="result file")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()

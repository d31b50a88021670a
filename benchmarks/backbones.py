"""Training steps of backbones on the CPU: images per second by threads and memory layout.

    python benchmarks/backbones.py [--nets tiny small --sizes 64 112 --batch 64 --steps 12]

A step is forward + backward in fp32 of one batch, without head and optimizer. One thread: batch
over the least CPU seconds of a step, which other work on the machine moves little. Two threads and
more: batch over the least wall-clock seconds of a step, so the machine should be idle; the load
average before the run is written with the figures. Layouts take turns, step by step.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.backbones import Backbone, create_backbone

LAYOUTS = {"contiguous": False, "channels_last": True}


def main() -> None:
    """Measure all combinations, print them as they come, write the result file."""
    options = _options().parse_args()
    rows = []
    load = os.getloadavg()[0]
    for row in measure_all(options):
        print(json.dumps(row), flush=True)
        rows.append(row)
    path = write_result("backbones", {"load_average_before": round(load, 1), "rows": rows})
    print(f"written: {path}")


def measure_all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row per net, image size and number of threads."""
    for name in options.nets:
        for size in options.sizes:
            for threads in options.threads:
                torch.set_num_threads(threads)
                shape = {"net": name, "image_size": size, "batch": options.batch}
                rates = images_per_second(name, size, options.batch, options.steps, threads)
                yield {**shape, "threads": threads, "images_per_second": rates}


def images_per_second(
    name: str, size: int, batch: int, steps: int, threads: int
) -> dict[str, float]:
    """Best rate of each layout."""
    net = create_backbone(name, image_size=size)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=draw) * 2 - 1
    clock = time.process_time if threads == 1 else time.perf_counter
    least = dict.fromkeys(LAYOUTS, float("inf"))
    for step in range(steps + 2):
        for layout, channels_last in LAYOUTS.items():
            net.channels_last = channels_last
            start = clock()
            train(net, images)
            if step >= 2:  # warm-up: allocations, kernels chosen
                least[layout] = min(least[layout], clock() - start)
    return {layout: round(batch / seconds, 1) for layout, seconds in least.items()}


def train(net: Backbone, images: torch.Tensor) -> None:
    """Forward and backward; gradients are dropped, not accumulated."""
    net.zero_grad(set_to_none=True)
    net(images).square().mean().backward()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", default=["tiny", "small"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 112])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    return parser


if __name__ == "__main__":
    main()

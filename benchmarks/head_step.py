"""One step of a full FC head, forward + backward + update: time and peak extra memory.

    python benchmarks/head_step.py [--classes 200000 --batch 512 --dim 512 --steps 5]

Methods: `streamed` (ours; `full` of `manyface bench head`) and `eager`, measured as that verb does
(src/manyface/bench). `--sweep 512 1024 ...` measures ours with other chunk sizes too.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from provenance import write_result

from manyface.bench import Job, Shape, compare
from manyface.softmax.streamed import DEFAULT_CHUNK_SIZE

SHAPE = ("classes", "batch", "dim", "steps", "threads", "chunk_size")


def main() -> None:
    """Run every method in its own process and write the result file."""
    options = _options().parse_args()
    shape = Shape(**{key: getattr(options, key) for key in SHAPE})
    sizes = {str(size): replace(shape, chunk_size=size) for size in options.sweep}
    jobs = [Job("streamed", "full", shape), Job("eager", "eager", shape)]
    jobs += [Job(name, "full", other) for name, other in sizes.items()]
    figures = compare(jobs, report=lambda name, doing: print(f"{name}: {doing}"))["methods"]
    result = {
        "shape": {key: getattr(shape, key) for key in SHAPE},
        "methods": {name: figures[name] for name in ("streamed", "eager")},
        "ratios": _ratios(figures["streamed"], figures["eager"]),
        "streamed_by_chunk_size": {name: figures[name] for name in sizes},
    }
    path = write_result("head_step", result, options.json)
    print(json.dumps(result, indent=2), f"\nwritten: {path}")


def _ratios(ours: dict[str, Any], eager: dict[str, Any]) -> dict[str, float] | None:
    if "step_seconds" not in eager or "step_seconds" not in ours:
        return None  # one does not fit, or died; its figures say so
    return {
        "time_of_eager": eager["step_seconds"]["median"] / ours["step_seconds"]["median"],
        "memory_of_eager": eager["peak_extra_bytes"] / ours["peak_extra_bytes"],
    }


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--chunk-size", type=int, default=DEFAULT_CHUNK_SIZE)
    parser.add_argument(
        "--sweep", type=int, nargs="*", default=[], help="further chunk sizes of ours"
    )
    parser.add_argument("--json", type=Path, help="result file")
    return parser


if __name__ == "__main__":
    main()

"""One step of every head at one and at ten million identities: time and memory, side by side.

    python benchmarks/head_methods.py [--classes 1000000 10000000 --batch 128 --dim 512 --steps 5]

Measured as `manyface bench head` does (src/manyface/bench), with F2C's pool at a tenth and at a
hundredth of the identities. What does not fit into the memory that is available is entered with
the bytes that it needs, computed.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from provenance import write_result

from manyface.bench import Job, Shape, compare
from manyface.cli.head_table import print_heads

POOL_RATIOS = (0.1, 0.01)


def jobs_of(shape: Shape) -> list[Job]:
    """Every method, F2C at both sizes of its pool."""
    pools = [Job(f"f2c {r:g}", "f2c", replace(shape, pool_ratio=r)) for r in POOL_RATIOS]
    partial = Job(f"partial {shape.sample_rate:g}", "partial", shape)
    return [Job("full", "full", shape), partial, *pools, Job("eager", "eager", shape)]


def main() -> None:
    """Compare at each number of identities and write the result file."""
    options = _options().parse_args()
    sizes = {}
    for classes in options.classes:
        shape = Shape(
            classes=classes,
            batch=options.batch,
            dim=options.dim,
            steps=options.steps,
            threads=options.threads,
        )
        print(f"{classes} classes", flush=True)
        found = {"shape": shape.as_dict(), **compare(jobs_of(shape), report=_say)}
        del found["shape"]["pool_ratio"]  # both; they are in the methods' names
        print_heads(found)
        sizes[str(classes)] = found
        path = write_result("head_methods", {"by_classes": sizes}, options.json)
    print(json.dumps(sizes, indent=2), f"\nwritten: {path}")


def _say(name: str, doing: str) -> None:
    print(f"{name}: {doing}", flush=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="result file")
    return parser


if __name__ == "__main__":
    main()

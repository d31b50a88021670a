"""The heads at the limit of the machine, against their rivals: a table of cases.

    python benchmarks/head_limits.py --checkout DIR [--cases sampled full ten-million flat mapped]

DIR is a checkout of insightface, whose PartialFC_V2 is run unchanged. Measured as `manyface bench
head` does (src/manyface/bench); a case that was measured before is kept in the result file.

    sampled      1M classes at 0.1: ours in bfloat16 and float32, the 2020 method, PartialFC_V2
    full         1M classes, all of them: ours in bfloat16 and float32, eager, torch's fused layer
    ten-million  10M classes at 0.1 and 0.01 in bfloat16, with momentum and without
    mapped       30,000 sampled rows of 30M classes in files (31 GB), and of 1M in memory
    flat         100,000 sampled rows of 1M and of 10M classes
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, write_result

from manyface.bench import Job, Shape, compare
from manyface.cli.head_table import print_heads

MILLION = 1_000_000


def sampled(shape: Shape) -> list[Job]:
    """1M classes at 0.1, with all rivals that sample."""
    names = ("partial_bf16", "partial", "partial_fc_2020", "arcface_torch", "arcface_torch_bf16")
    return [Job(name, name, shape) for name in names]


def full(shape: Shape) -> list[Job]:
    """1M classes, all of them in every step."""
    names = ("full_bf16", "full", "eager", "linear_cross_entropy")
    return [Job(name, name, shape) for name in names]


def ten_million(shape: Shape) -> list[Job]:
    """10M classes, which fit with rows in bfloat16."""
    jobs = []
    for rate in (0.1, 0.01):
        for momentum in (0.9, 0.0):
            there = replace(shape, classes=10 * MILLION, sample_rate=rate, momentum=momentum)
            jobs.append(Job(f"r={rate:g} momentum {momentum:g}", "partial_bf16", there))
    return jobs


def flat(shape: Shape) -> list[Job]:
    """The same sample of ten times the classes."""
    small = replace(shape, momentum=0.0)
    large = replace(small, classes=10 * MILLION, sample_rate=0.01)
    return [Job("1M classes", "partial_bf16", small), Job("10M classes", "partial_bf16", large)]


def mapped(shape: Shape) -> list[Job]:
    """30M classes in files, and the same sample of a table in memory; no momentum."""
    small = replace(shape, classes=MILLION, sample_rate=0.03, momentum=0.0)
    large = replace(small, classes=30 * MILLION, sample_rate=0.001, files=tempfile.gettempdir())
    return [
        Job("1M in memory", "partial_bf16", small),
        Job("30M in files", "partial_bf16_files", large),
    ]


CASES: dict[str, Callable[[Shape], list[Job]]] = {
    "sampled": sampled,
    "full": full,
    "ten-million": ten_million,
    "flat": flat,
    "mapped": mapped,
}


def main() -> None:
    """Measure the cases and write the result file."""
    options = _options().parse_args()
    path = options.json or RESULTS / "head_limits.json"
    cases: dict[str, Any] = json.loads(path.read_text())["cases"] if path.exists() else {}
    shape = Shape(
        classes=MILLION,
        batch=256,
        dim=512,
        sample_rate=0.1,
        steps=options.steps,
        threads=options.threads,
        checkout=options.checkout,
    )
    for name in options.cases:
        cases[name] = compare(CASES[name](shape), report=_say)
        print_heads({"shape": shape.as_dict(), **cases[name]})
        write_result("head_limits", {"cases": cases}, path)


def _say(name: str, doing: str) -> None:
    print(f"{name}: {doing}", flush=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", required=True, help="of insightface")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="result file")
    return parser


if __name__ == "__main__":
    main()

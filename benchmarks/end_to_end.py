"""Training end to end: what channels-last, bf16, torch.compile and fused optimizers are worth.

    python benchmarks/end_to_end.py [--nets small mbf r18 --steps 4 --only fp32 bf16]

Measured as `manyface bench train` does (src/manyface/bench/training.py), each in a process of its
own: Partial FC at 0.1 of 10,000 identities, JPEG records at 112 pixels. From the plain way one
thing is changed at a time, then what paid is put together, and last the loader is left out:

    fp32           plain: contiguous images, optimizer operation by operation, no compilation
    fused          + one pass over the weights
    channels_last  + images whose channels lie together
    bf16           + bf16 autocast
    together       bf16, channels_last, fused: the trainer's defaults where there is fast bf16
    compiled       together + torch.compile; its warm-up is entered, and is no part of images/s
    no_loader      together, batches made before

Ratios are to the plain way of the same net. The machine should be idle; the load average before is
written with the figures.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from provenance import write_result

from manyface.bench import TrainingJob, TrainingOptions, compare_trainings
from manyface.cli.train_table import print_trainings
from manyface.config import parse_config

BATCHES = {"small": 64, "mbf": 64, "r18": 16}  # all of it within ten minutes on two idle cores
PLAIN = {
    "run.precision": "fp32",
    "run.channels_last": "false",
    "optimizer.fused": "false",
    "run.compile": "false",
}
FUSED, LAYOUT = {"optimizer.fused": "true"}, {"run.channels_last": "true"}
HALF = {"run.precision": "bf16"}
TOGETHER = {**HALF, **LAYOUT, **FUSED}
WAYS: dict[str, dict[str, str]] = {
    "fp32": {},
    "fused": FUSED,
    "channels_last": LAYOUT,
    "bf16": HALF,
    "together": TOGETHER,
    "compiled": {**TOGETHER, "run.compile": "true"},
    "no_loader": TOGETHER,
}


def main() -> None:
    """Measure every net in every way, print the table, write the result file."""
    options = _options().parse_args()
    load = os.getloadavg()[0]
    jobs = [_job(net, way, options) for net in options.nets for way in options.only]
    found = compare_trainings(jobs, report=_say)
    print_trainings(found)
    for net in options.nets:
        print(f"{net}: {json.dumps(ratios(found, net))}")
    result = {
        "load_average_before": round(load, 1),
        "trainings": found,
        "ratios": {net: ratios(found, net) for net in options.nets},
    }
    print(f"written: {write_result('end_to_end', result, options.json)}")


def ratios(found: dict[str, dict[str, Any]], net: str) -> dict[str, float]:
    """Way -> images per second over those of the plain way, of those that ran."""
    rates = {
        name.removeprefix(f"{net} "): each["images_per_second"]
        for name, each in found.items()
        if name.startswith(f"{net} ") and "images_per_second" in each
    }
    return {way: round(rate / rates["fp32"], 3) for way, rate in rates.items() if "fp32" in rates}


def _job(net: str, way: str, options: argparse.Namespace) -> TrainingJob:
    keys = {
        "backbone.name": net,
        "train.batch_size": options.batch or BATCHES.get(net, 16),
        "head.sample_rate": 0.1,
        "run.threads": options.threads,
        **PLAIN,
        **WAYS[way],
    }
    config = parse_config("", [f"{key}={value}" for key, value in keys.items()])
    measured = TrainingOptions(loader=way != "no_loader", steps=options.steps)
    return TrainingJob(f"{net} {way}", config, measured)


def _say(name: str, doing: str) -> None:
    if not doing.startswith("step"):
        print(f"{name}: {doing}", flush=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(BATCHES))
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="ways")
    parser.add_argument("--batch", type=int, help="of all nets")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="result file")
    return parser


if __name__ == "__main__":
    main()

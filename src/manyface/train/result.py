"""result.json: one run in figures, for tables, reports and the reader who comes back in a year."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.evaluate import Evaluation
from manyface.kernels import choose
from manyface.observe.memory import peak_device_bytes
from manyface.observe.provenance import commit, versions
from manyface.train.build import Training
from manyface.train.devices import describe_device
from manyface.train.state import Position
from manyface.train.validation import scores_of

_NO_SCORES: dict[str, Any] = {
    "verification_accuracy": None,
    "verification_std": None,
    "auc": None,
    "tar_at_far": {},
}


def make_result(
    config: Config,
    training: Training,
    position: Position,
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Any]:
    """The figures of a finished run; its headline scores are those of the first set.

    images_per_second is training images over the time of training steps, waiting for data
    included, evaluation and saving excluded. Peak memory: see observe/memory.py.
    """
    first = next(iter(evaluations.values()), None)
    seconds = position.train_seconds
    pooled = config.head.method in WITHOUT_CENTERS
    return {
        "name": config.run.name,
        "method": config.head.method,
        "backbone": config.backbone.model_dump(),
        "head": config.head.model_dump(),
        "num_identities": training.source.num_identities,
        "num_images": len(training.source),
        "sample_rate": None if pooled else config.head.sample_rate,
        "pool": config.pool.model_dump() if pooled else None,
        **(first.summary() if first else _NO_SCORES),
        "images_per_second": position.images / seconds if seconds > 0 else 0.0,
        "peak_memory_bytes": position.peak_memory_bytes,
        "peak_device_bytes": peak_device_bytes(training.device),
        "train_seconds": seconds,
        "total_seconds": position.elapsed_seconds,
        "steps": position.step,
        "batch_size": config.train.batch_size,
        "accumulation": config.optimizer.accumulation,
        "seed": config.run.seed,
        "precision": str(training.autocast or torch.float32).removeprefix("torch."),
        "device": describe_device(training.device),
        "kernels": str(choose(training.device)),
        "versions": versions(),
        "commit": commit(),
        "sets": {name: {"scores": scores_of(found)} for name, found in evaluations.items()},
        "notes": [note for found in evaluations.values() for note in found.notes],
    }


def render_result(result: Mapping[str, Any]) -> str:
    """The text of result.json."""
    return json.dumps(result, indent=1, ensure_ascii=False) + "\n"

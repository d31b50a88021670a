"""What a run's accuracy means: the same pairs verified without any training of identities."""

import time
from typing import Any

from manyface.cli.console import warn
from manyface.config import Config
from manyface.evaluate import Evaluation, fit_whitened_pixels, make_embed_function
from manyface.train.build_data import build_source
from manyface.train.build_model import build_backbone
from manyface.train.build_pairs import build_evaluators
from manyface.train.validation import scores_of

Row = dict[str, Any]


def measure_baselines(config: Config) -> list[Row]:
    """Rows like those of result.json for whitened pixels and for the backbone before training."""
    source = build_source(config, warn=warn)
    rows = []
    for evaluator in build_evaluators(config, source, warn=warn)[:1]:
        began = time.perf_counter()
        pixels = fit_whitened_pixels(source, seed=config.run.seed)
        seconds = time.perf_counter() - began
        untrained = make_embed_function(build_backbone(config), flip=config.evaluation.flip)
        name = evaluator.pairs.name
        rows.append(_row("whitened pixels", name, evaluator(pixels), train_seconds=seconds))
        rows.append(_row("untrained backbone", name, evaluator(untrained), train_seconds=0.0))
    return rows


def _row(name: str, pairs: str, found: Evaluation, *, train_seconds: float) -> Row:
    return {
        "name": name,
        "method": "baseline",
        **found.summary(),
        "num_identities": 0,
        "num_images": 0,
        "sample_rate": None,
        "images_per_second": None,
        "peak_memory_bytes": None,
        "train_seconds": train_seconds,
        "steps": 0,
        "sets": {pairs: {"scores": scores_of(found)}},
    }

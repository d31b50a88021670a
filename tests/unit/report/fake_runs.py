"""Run directories as training leaves them, with made-up numbers and pictures of simple shapes."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from manyface.base.random import numpy_generator
from manyface.evaluate import PairEvaluator, synthetic_pairs
from manyface.evaluate.files import write_evaluation
from manyface.evaluate.verification import Evaluation

NUM_STEPS = 1500


class Shapes:
    """A source of 120 people x 6 images: a coloured disc on a gradient, jittered."""

    name = "synthetic"
    image_size = 48
    num_identities = 120
    identity_names = [f"shape {i}" for i in range(120)]  # noqa: RUF012

    def __len__(self) -> int:
        return 720

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(indices, dtype=np.int64) // 6

    def load(self, indices: np.ndarray) -> Any:
        import torch

        pictures = [self._picture(int(index)) for index in indices]
        return torch.from_numpy(np.stack(pictures))

    def _picture(self, index: int) -> np.ndarray:
        of_person = numpy_generator(0, "shape", index // 6)
        own = numpy_generator(0, "shape instance", index)
        rows, columns = np.mgrid[0:48, 0:48]
        centre = 24 + of_person.uniform(-6, 6, 2) + own.uniform(-2, 2, 2)
        radius = of_person.uniform(9, 17)
        inside = np.hypot(rows - centre[0], columns - centre[1]) < radius
        background = of_person.uniform(40, 180, 3) + (rows[..., None] - 24) * own.uniform(-2, 2)
        picture = np.where(inside[..., None], of_person.uniform(60, 250, 3), background)
        return (picture + own.normal(scale=6, size=picture.shape)).clip(0, 255).astype(np.uint8)


def make_run(
    directory: Path,
    name: str,
    *,
    seed: int = 0,
    margin: float = 2.5,
    num_pairs: int = 600,
    source: Any = None,
    **fields: Any,
) -> Path:
    """A finished run; `margin` (in standard deviations) sets how well it tells people apart."""
    directory.mkdir(parents=True)
    rng = numpy_generator(seed, "fake run", name)
    pairs = synthetic_pairs(source or Shapes(), num_pairs=num_pairs, folds=10, seed=0)
    evaluator = PairEvaluator(pairs, (0.1, 0.01), resamples=100)
    difficulty = numpy_generator(0, "difficulty").normal(size=len(pairs))
    own = rng.normal(size=len(pairs))

    def evaluate(strength: float) -> Evaluation:
        raw = strength * (pairs.same - 0.5) + 0.8 * difficulty + 0.6 * own
        return evaluator.score(np.tanh(0.3 * raw).astype(np.float32))

    evaluation = evaluate(margin)
    write_evaluation(directory / "evaluation", pairs, evaluation)
    scores = [vars(score) for score in evaluation.scores]
    events = [{"kind": "start", "step": 0, "seconds": 0.0}]
    for step in range(10, NUM_STEPS + 1, 10):
        loss = 3 + 15 * np.exp(-step / 400) + rng.normal(scale=0.4)
        rate = 0.1 * min(step / 100, (NUM_STEPS - step) / (NUM_STEPS - 100))
        speed = fields.get("images_per_second", 420) * (1 + rng.normal(scale=0.03))
        events.append(
            {
                "kind": "step",
                "step": step,
                "seconds": step * 0.2,
                "loss": float(loss),
                "learning_rate": rate,
                "images_per_second": float(speed),
                "grad_norm": 1.0,
            }
        )
        if step % 300 == 0:
            during = [vars(score) for score in evaluate(margin * (1 - np.exp(-step / 400))).scores]
            events.append({"kind": "evaluation", "step": step, "set": pairs.name, "scores": during})
    events.append({"kind": "end", "step": NUM_STEPS, "seconds": 300.0})
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (directory / "events.jsonl").write_text(lines)
    (directory / "config.toml").write_text(f'[run]\nname = "{name}"\nseed = {seed}\n')
    row = {
        "name": name,
        "method": "full",
        **evaluation.summary(),
        "num_identities": 6000,
        "num_images": 60000,
        "sample_rate": 1.0,
        "images_per_second": 420.0,
        "peak_memory_bytes": 1_234_567_890,
        "train_seconds": 187.3,
        "steps": NUM_STEPS,
        "batch_size": 128,
        "seed": seed,
        "notes": evaluation.notes,
        "versions": {"manyface": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "commit": "0123abc",
        "device": "cpu, 2 threads",
        "sets": {pairs.name: scores},
        **fields,
    }
    (directory / "result.json").write_text(json.dumps(row))
    return directory


def make_demo(directory: Path, **options: Any) -> Path:
    """What `manyface demo` leaves: two runs, and a results.json that lists baselines too."""
    full = make_run(directory / "full", "Full FC", margin=3.2, **options)
    partial = make_run(
        directory / "partial",
        "Partial FC",
        margin=3.1,
        sample_rate=0.1,
        images_per_second=512.0,
        peak_memory_bytes=998_000_000,
        **options,
    )
    runs = [json.loads((run / "result.json").read_text()) for run in (full, partial)]
    baselines = [
        {"name": "whitened pixels", "verification_accuracy": 0.684, "verification_std": 0.02,
         "tar_at_far": {"0.1": 0.31, "0.01": 0.08}, "auc": 0.74},
        {"name": "untrained backbone", "verification_accuracy": 0.602, "verification_std": 0.03,
         "tar_at_far": {"0.1": 0.2, "0.01": 0.03}, "auc": 0.63},
    ]  # fmt: skip
    (directory / "results.json").write_text(json.dumps({"methods": [*runs, *baselines]}))
    return directory

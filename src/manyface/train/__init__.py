"""Training: from a config to a run directory. `loop.py` is the page to read first."""

from manyface.train.run import RunResult, train
from manyface.train.scoring import evaluate_run, load_embedder
from manyface.train.stop import Interrupted, StopFlag

__all__ = ["Interrupted", "RunResult", "StopFlag", "evaluate_run", "load_embedder", "train"]

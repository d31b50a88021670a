"""Which classes take part in a step of Partial FC: the positive ones and random negative ones.

The rule of Partial FC (arXiv 2203.15565, sec. 3; insightface samples the same way): of N classes,
int(sample_rate * N) take part, all classes of the batch among them, the others drawn uniformly
without replacement. If the batch has more classes than that, exactly the batch's classes take part
and there are no further negatives.

The draw costs O(sample), not O(N): the negatives of step t are the first images of a permutation
of [0, N) that is computed, not stored, keyed by (seed, t). (insightface draws a random number per
class and takes the top k; benchmarks/head_sampling.py has both.)
"""

import numpy as np
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.permutation import Permutation
from manyface.base.random import stream_seed


def sample_size(num_classes: int, sample_rate: float) -> int:
    """Number of classes that take part: int(sample_rate * num_classes)."""
    if not 0.0 <= sample_rate <= 1.0:
        raise ConfigError(f"sample_rate must be in [0, 1], got {sample_rate}")
    return int(sample_rate * num_classes)


def sample_classes(labels: Tensor, *, num_classes: int, size: int, seed: int, step: int) -> Tensor:
    """Classes of a step, int64 [max(size, distinct labels)], sorted, on the device of `labels`.

    Args:
        labels: int64 [B], classes of the batch.
        num_classes: N.
        size: classes to draw, positives included.
        seed: of the stream of draws.
        step: number of the draw; the same step draws the same candidates.
    """
    if size >= num_classes:
        return torch.arange(num_classes, device=labels.device)
    positives: Tensor = torch.unique(labels.cpu())  # sorted
    num_negatives = size - positives.shape[0]
    if num_negatives <= 0:
        return positives.to(labels.device)
    # `size` distinct candidates: at most len(positives) of them are positives, enough remain.
    permutation = Permutation(num_classes, seed=stream_seed(seed, "negatives", step))
    candidates = torch.from_numpy(permutation(np.arange(size)))
    negatives = candidates[~torch.isin(candidates, positives)][:num_negatives]
    return torch.cat([positives, negatives]).sort().values.to(labels.device)

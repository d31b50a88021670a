"""Classes drawn by weights: such as the inverse of how many images a class has.

A class with many images is a positive often; drawn as a negative the less for it, rare classes get
their share of the updates (the class-balanced sampling of long-tailed recognition, e.g. Kang et
al., ICLR 2020, arXiv 1910.09217, done to the negatives). The softmax is not corrected for it, as it
is not for uniform sampling.

*Without replacement.* Classes are drawn one after the other, each with a probability proportional
to its weight among those that are left: an exponential race, in which class i arrives at a time
drawn from Exp(w_i) and the first k win (Efraimidis and Spirakis, Inf. Process. Lett. 97, 2006). For
k of N classes it need not be run with all N: draws *with* replacement in which repeats are skipped
have the same law, and each costs O(1) by an alias table (Walker 1977, Vose 1991), set up once in
O(N), 12 bytes a class. Where repeats are many (a sample of most classes, weights of a few
giants), the race is run among those that are left, O(N): the law is the same, a race forgets.

The candidates depend on (seed, step) and the weights alone, so they are known steps ahead.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.permutation import Int64Array
from manyface.base.random import numpy_generator
from manyface.centers import RowBlocks
from manyface.heads.sampling import SampleSpec, join_positives

Float64Array = npt.NDArray[np.float64]
# Draws per class wanted after which the race among the others is the cheaper way.
_PATIENCE = 4


def balance_weights(counts: Int64Array, power: float = 1.0) -> Float64Array:
    """counts^-power of the images of each class, int [N] of at least 1 -> float64 [N].

    Power 0 is uniform, 1 the inverse frequency, 0.5 between them.
    """
    if len(counts) == 0 or counts.min() < 1:
        raise ConfigError("every class needs an image to be weighed by their number")
    return counts.astype(np.float64) ** -power


class AliasTable:
    """Draws i in [0, N) with probability w_i / sum(w), O(1) each: Vose's table, by prefix sums.

    Cell i holds i with a probability, else its alias. With weights of mean 1, light ones (below 1)
    lie in their own cells, and heavy ones fill up these cells in turn: the light one before which
    all lack D is filled by the first heavy one up to which all have more than D to give. A heavy
    one that has given more than it can is filled up by the next.
    """

    def __init__(self, weights: Float64Array) -> None:
        scaled = weights * (len(weights) / weights.sum())
        heavy = np.flatnonzero(scaled >= 1.0)
        heavy = heavy if len(heavy) else np.array([scaled.argmax()])  # all 1, but for rounding
        is_light = np.ones(len(weights), np.bool_)
        is_light[heavy] = False
        light = np.flatnonzero(is_light)
        lacking, given = np.cumsum(1.0 - scaled[light]), np.cumsum(scaled[heavy] - 1.0)
        last = len(heavy) - 1
        self._probability = scaled.astype(np.float32)
        self._alias = np.arange(len(weights), dtype=np.int32)
        before = np.concatenate([[0.0], lacking[:-1]])[
            : len(light)
        ]  # the same bits, lest ties part
        fills = np.searchsorted(given, before, side="right")
        self._alias[light] = heavy[np.minimum(fills, last)]
        empties = np.searchsorted(lacking, given)  # the light one that takes too much
        short = (empties < len(light)) & (given > 0)  # who gives nothing takes nothing
        self._probability[heavy] = 1.0
        self._probability[heavy[short]] = 1.0 + given[short] - lacking[empties[short]]
        self._alias[heavy] = heavy[np.minimum(np.arange(len(heavy)) + 1, last)]

    def draw(self, count: int, generator: np.random.Generator) -> Int64Array:
        """int64 [count], with repeats."""
        cells = generator.integers(len(self._alias), size=count)
        stays = generator.random(count, np.float32) < self._probability[cells]
        return np.where(stays, cells, self._alias[cells])


class ClassBalanced:
    """A class is drawn the more often the larger its weight; see the file.

    Args:
        weights: of each class, [N], finite and above 0: `balance_weights(counts)`.

    Raises:
        ConfigError: other weights.
    """

    def __init__(self, weights: Float64Array) -> None:
        weights = np.asarray(weights, np.float64)
        with np.errstate(over="ignore", under="ignore"):
            self._weights = weights.astype(np.float32)
        is_fine = np.isfinite(self._weights) & (self._weights > 0)
        if weights.ndim != 1 or len(weights) == 0 or not is_fine.all():
            raise ConfigError(
                "weights of classes must be one number for each, above 0 and finite in float32"
            )
        self._table = AliasTable(weights)

    def __repr__(self) -> str:
        return f"ClassBalanced([{len(self._weights)}])"

    def check(self, num_classes: int, size: int) -> None:
        """There must be a weight for every class."""
        if len(self._weights) != num_classes:
            raise ConfigError(
                f"{len(self._weights)} weights for {num_classes} classes: expected one for each"
            )

    def draw(self, labels: Tensor, of: SampleSpec) -> tuple[Tensor, Tensor]:
        """As `RowSampler` says; K is the size, or the number of positives if that is larger."""
        if of.size >= of.num_rows:
            return torch.arange(of.num_rows, device=labels.device), labels
        positives = np.unique(labels.cpu().numpy())
        ids = torch.from_numpy(join_positives(positives, self._candidates(of))).to(labels.device)
        return ids, torch.searchsorted(ids, labels)

    def foreseen(self, of: SampleSpec) -> RowBlocks:
        """As `RowSampler` says."""
        return RowBlocks(np.sort(self._candidates(of)), 1)

    def _candidates(self, of: SampleSpec) -> Int64Array:
        """Places of the classes of a step before labels are known, in the order of the draw."""
        classes = self._race(of.size, numpy_generator(of.seed, "balanced", of.step))
        return of.order(torch.from_numpy(classes)).numpy()

    def _race(self, size: int, generator: np.random.Generator) -> Int64Array:
        """The first `size` classes to arrive, in the order of their arrival."""
        found, draws = np.empty(0, np.int64), 0
        while len(found) < size and draws < _PATIENCE * size:
            count = size - len(found) + size // 8 + 16
            found = _first_of_each(np.concatenate([found, self._table.draw(count, generator)]))
            draws += count
        if len(found) < size:
            found = np.concatenate([found, self._rest(size - len(found), found, generator)])
        return found[:size]

    def _rest(self, count: int, found: Int64Array, generator: np.random.Generator) -> Int64Array:
        """The next `count` classes after those that were `found`: O(N)."""
        times = generator.standard_exponential(len(self._weights), np.float32) / self._weights
        times[found] = np.inf
        first = np.argpartition(times, count - 1)[:count]
        return first[np.argsort(times[first], kind="stable")]


def _first_of_each(values: Int64Array) -> Int64Array:
    """`values` without repeats, in their order."""
    _, places = np.unique(values, return_index=True)
    return values[np.sort(places)]

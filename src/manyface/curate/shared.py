"""People who are in two sets: each the other's nearest, and as alike as one person's images are.

The limit is measured as in conflicts.py, in each of the sets that allows it; the higher one counts.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from manyface.base.errors import DataError
from manyface.curate.conflicts import measure_thresholds
from manyface.curate.embedded import EmbeddedSet, Float32Array, nearest_center, unit
from manyface.data.source import Int64Array


@dataclass(frozen=True)
class SharedIdentities:
    """Attributes:
    first, second: int64 [n], people of the one and of the other set, most alike first.
    cosines: float32 [n], of their means.
    threshold: the limit they exceed.
    """

    first: Int64Array
    second: Int64Array
    cosines: Float32Array
    threshold: float


def find_shared(
    one: EmbeddedSet, other: EmbeddedSet, *, threshold: float | None = None
) -> SharedIdentities:
    """People of both sets, at most one to one.

    Raises:
        DataError: no threshold is given and neither set has enough images to measure it.
    """
    limit = _measured(one, other) if threshold is None else threshold
    ours, theirs = unit(one.sums()), unit(other.sums())
    there, alike = nearest_center(ours, theirs, None)
    back, _ = nearest_center(theirs, ours, None)
    first = np.flatnonzero((back[there] == np.arange(len(there))) & (alike >= limit))
    first = first[np.argsort(-alike[first], kind="stable")]
    return SharedIdentities(first, there[first], alike[first], limit)


def _measured(*sets: EmbeddedSet) -> float:
    limits = []
    for each in sets:
        with suppress(DataError):
            limits.append(measure_thresholds(each).same_person)
    if not limits:
        raise DataError(
            "neither set has 20 people with 4 images or more: how alike one person's images are "
            "cannot be measured; give --threshold"
        )
    return max(limits)

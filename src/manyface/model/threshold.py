"""The similarity from which two faces count as one person, with what it was measured on.

A threshold without its set says little: at the same FAR it moves from one set of people to another.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manyface.base.errors import DataError
from manyface.evaluate import metrics


@dataclass(frozen=True)
class Threshold:
    """Two embeddings with a cosine of at least `value` are of one person.

    Attributes:
        value: cosine.
        far: share of different pairs that may be accepted; the measured one is not above it.
        tar: share of same pairs that were accepted.
        measured_on: name of the set of pairs.
        num_same, num_different: its pairs.
    """

    value: float
    far: float
    tar: float
    measured_on: str
    num_same: int
    num_different: int

    def __post_init__(self) -> None:
        shares = 0 < self.far <= 1 and 0 <= self.tar <= 1
        # Above 1 where two strangers are as alike as a face is itself.
        if not (abs(self.value) <= 2 and shares and min(self.num_same, self.num_different) >= 0):
            raise DataError(f"this cannot be a threshold: {self}")

    def to_json(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)


def threshold_at_far(
    similarity: metrics.Similarities, same: metrics.BoolArray, far: float, *, name: str
) -> Threshold:
    """The lowest threshold among the similarities [P] whose measured FAR is not above `far`.

    Raises:
        DataError: `far` is smaller than one of the different pairs, so that it cannot be seen.
    """
    num_different = int(np.count_nonzero(~same))
    if not 0 < far <= 1:
        raise DataError(f"a FAR must be above 0 and at most 1, got {far:g}")
    if far * num_different < 1 - 1e-9:
        raise DataError(
            f"{name} has {num_different} different pairs, which can show no FAR below "
            f"{1 / max(num_different, 1):.2g}, and {far:g} was asked for: give a higher one, or "
            "more pairs; nothing is extrapolated"
        )
    roc = metrics.roc_points(similarity, same)
    cut = int(np.searchsorted(roc.far * num_different, far * num_different + 1e-9, "right")) - 1
    value = roc.thresholds[cut]
    if np.isinf(value):  # the most similar pair of all is a different one, or ties with it
        value = np.nextafter(similarity.max(), similarity.dtype.type(np.inf))
    return Threshold(
        value=float(value),
        far=far,
        tar=float(roc.tar[cut]),
        measured_on=name,
        num_same=len(same) - num_different,
        num_different=num_different,
    )

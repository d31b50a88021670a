"""What every protocol gives: scores with their intervals, notes, curves.

One shape for all, so that a table, a JSON file and a page need no knowledge of protocols.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One number with its 95 % interval (None where it has none) and how it was measured."""

    name: str
    value: float
    low: float | None
    high: float | None
    protocol: str


@dataclass(frozen=True)
class Curve:
    """Points of a ROC curve, few enough to draw; every one is a decision that the data allow.

    Attributes:
        name: "" for the whole set, else the part of it.
        far, tar: float64 [n], both rising.
    """

    name: str
    far: FloatArray
    tar: FloatArray


@dataclass(frozen=True)
class ProtocolResult:
    """The scores of one model under one protocol.

    Attributes:
        name: of the set.
        protocol: in one line, whose rule and on what.
        notes: what could not be measured, and why; what the reader has to know.
    """

    name: str
    protocol: str
    scores: list[Score]
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def value(self, name: str) -> float | None:
        """The value of the score `name`, None where it was not measured."""
        return value_of(self.scores, name)

    def as_dict(self) -> dict[str, Any]:
        """All of it in lists, numbers and texts, for JSON."""
        curves = [
            {"name": each.name, "far": each.far.tolist(), "tar": each.tar.tolist()}
            for each in self.curves
        ]
        scores = [asdict(score) for score in self.scores]
        return {
            "name": self.name,
            "protocol": self.protocol,
            "scores": scores,
            "notes": list(self.notes),
            "curves": curves,
        }


@dataclass(frozen=True)
class Mistakes:
    """Pictures of K wrong decisions, the most confident first.

    Attributes:
        left, right: uint8 [K, S, S, 3], what was compared.
        similarity: float32 [K], cosines.
        same: bool [K], the truth.
    """

    left: npt.NDArray[np.uint8]
    right: npt.NDArray[np.uint8]
    similarity: npt.NDArray[np.float32]
    same: npt.NDArray[np.bool_]


def thinned(curve: Curve, count: int = 200) -> Curve:
    """At most `count` of the points of `curve`, half of them denser towards its beginning."""
    size = len(curve.far)
    if size <= count:
        return curve
    low = np.geomspace(1, size, count // 2).astype(np.int64) - 1
    kept = np.unique(np.concatenate([low, np.linspace(0, size - 1, count // 2).astype(np.int64)]))
    return Curve(curve.name, curve.far[kept], curve.tar[kept])


def value_of(scores: list[Score], name: str) -> float | None:
    """The value of the score `name`, None where there is none."""
    return next((score.value for score in scores if score.name == name), None)

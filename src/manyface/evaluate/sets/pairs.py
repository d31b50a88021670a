"""Sets of pairs: insightface's `.bin`, LFW's lists, lists of two paths and an answer."""

from collections.abc import Sequence

import numpy as np

from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.files import worst_errors
from manyface.evaluate.metrics import roc_points
from manyface.evaluate.pairs import PairSet
from manyface.evaluate.result import Curve, ProtocolResult
from manyface.evaluate.sets.base import JudgedSet, Judgement, Mistakes, Part, Show
from manyface.evaluate.verification import Evaluation, PairEvaluator

_NUM_MISTAKES = 12
_CURVE_POINTS = 400


class JudgedPairs(JudgedSet):
    """Pairs of photos: do they show one person?"""

    def __init__(self, pairs: PairSet, *, fars: Sequence[float]) -> None:
        self.name = pairs.name
        self._pairs = pairs
        self._evaluator = PairEvaluator(pairs, fars)

    @property
    def parts(self) -> Sequence[Part]:
        both = np.concatenate([self._pairs.left, self._pairs.right])  # [2P]
        return [Part(self._pairs.source, both)]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        found = self._evaluator.judge(*np.split(features[0], 2))
        rule = found.scores[0].protocol
        result = ProtocolResult(self.name, rule, found.scores, found.notes, [_curve(found)])
        return Judgement(result, self._mistakes(found))

    def _mistakes(self, found: Evaluation) -> Mistakes:
        worst, pairs = worst_errors(found, _NUM_MISTAKES), self._pairs
        return Mistakes(
            left=pairs.source.load(pairs.left[worst]).numpy(),
            right=pairs.source.load(pairs.right[worst]).numpy(),
            similarity=found.similarity[worst],
            same=found.same[worst],
        )


def _curve(found: Evaluation) -> Curve:
    """Points of the ROC: where the FAR changes, thinned to those that a picture can show."""
    roc = roc_points(found.similarity, found.same)
    last = np.append(np.flatnonzero(np.diff(roc.far)), len(roc.far) - 1)
    chosen = last[np.unique(np.linspace(0, len(last) - 1, _CURVE_POINTS).astype(np.int64))]
    return Curve("", roc.far[chosen], roc.tar[chosen])

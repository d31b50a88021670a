"""Sets of pairs: insightface's `.bin`, LFW's lists, lists of two paths and an answer."""

from collections.abc import Sequence

import numpy as np

from manyface.evaluate.bin_score import bin_scores
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.files import worst_errors
from manyface.evaluate.metrics import roc_points
from manyface.evaluate.pairs import PairSet
from manyface.evaluate.result import Curve, Mistakes, ProtocolResult
from manyface.evaluate.sets.base import JudgedSet, Judgement, Part, Show
from manyface.evaluate.verification import Evaluation, PairEvaluator

_NUM_MISTAKES = 12
_CURVE_POINTS = 400


class JudgedPairs(JudgedSet):
    """Pairs of photos: do they show one person?"""

    def __init__(self, pairs: PairSet, *, fars: Sequence[float]) -> None:
        self.name = pairs.name
        self._pairs = pairs
        self._evaluator = None if _is_bin_of_one_kind(pairs) else PairEvaluator(pairs, fars)

    @property
    def parts(self) -> Sequence[Part]:
        both = np.concatenate([self._pairs.left, self._pairs.right])  # [2P]
        return [Part(self._pairs.source, both)]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        left, right = np.split(features[0], 2)
        if self._evaluator is None:
            return Judgement(self._by_their_rule(left, right))
        found = self._evaluator.judge(left, right)
        rule = found.scores[0].protocol
        result = ProtocolResult(self.name, rule, found.scores, found.notes, [_curve(found)])
        return Judgement(result, self._mistakes(found))

    def _by_their_rule(self, left: Float32Array, right: Float32Array) -> ProtocolResult:
        scores, notes = bin_scores(left, right, self._pairs.same)
        kind = "one person" if self._pairs.same[0] else "two people"
        notes.append(
            f"all {len(self._pairs)} pairs are of {kind}: no threshold can be chosen on them"
        )
        return ProtocolResult(self.name, "insightface's rule alone", scores, notes)

    def _mistakes(self, found: Evaluation) -> Mistakes:
        worst, pairs = worst_errors(found, _NUM_MISTAKES), self._pairs
        return Mistakes(
            left=pairs.source.load(pairs.left[worst]).numpy(),
            right=pairs.source.load(pairs.right[worst]).numpy(),
            similarity=found.similarity[worst],
            same=found.same[worst],
        )


def _is_bin_of_one_kind(pairs: PairSet) -> bool:
    """Then insightface's rule still gives a figure; ours does not."""
    return pairs.is_bin and len(np.unique(pairs.same)) == 1


def _curve(found: Evaluation) -> Curve:
    """Points of the ROC: where the FAR changes, thinned to those that a picture can show."""
    roc = roc_points(found.similarity, found.same)
    last = np.append(np.flatnonzero(np.diff(roc.far)), len(roc.far) - 1)
    chosen = last[np.unique(np.linspace(0, len(last) - 1, _CURVE_POINTS).astype(np.int64))]
    return Curve("", roc.far[chosen], roc.tar[chosen])

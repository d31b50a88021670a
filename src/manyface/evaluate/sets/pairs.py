"""Sets of pairs: insightface's `.bin`, LFW's lists, lists of two paths and an answer."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from manyface.evaluate.bin_score import bin_scores
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.bootstrap import Unit
from manyface.evaluate.files import worst_errors
from manyface.evaluate.pairs import PairSet
from manyface.evaluate.parts import DecidedPairs, by_group, by_quality
from manyface.evaluate.result import Mistakes, ProtocolResult
from manyface.evaluate.sets.base import NUM_MISTAKES, JudgedSet, Judgement, Part, Show
from manyface.evaluate.verification import Evaluation, PairEvaluator


class JudgedPairs(JudgedSet):
    """Pairs of photos: do they show one person?

    Args:
        by_quality: also in ten parts by the length of the embeddings.
        groups: [N] the subgroup of each image of the source: also within each.
    """

    def __init__(
        self,
        pairs: PairSet,
        *,
        fars: Sequence[float],
        by_quality: bool = False,
        groups: npt.NDArray[np.str_] | None = None,
    ) -> None:
        self.name = pairs.name
        self._pairs, self._by_quality, self._groups = pairs, by_quality, groups
        self._evaluator = None if _is_bin_of_one_kind(pairs) else PairEvaluator(pairs, fars)

    @property
    def parts(self) -> Sequence[Part]:
        both = np.concatenate(self._pairs.distinct)  # [2P]
        return [Part(self._pairs.source, both)]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        left, right = np.split(features[0], 2)
        if self._evaluator is None:
            return Judgement([self._by_their_rule(left, right)])
        found = self._evaluator.judge(left, right)
        results = [found.as_result(self.name), *self._parts_of(found, left, right)]
        return Judgement(results, self._mistakes(found))

    def _parts_of(
        self, found: Evaluation, left: Float32Array, right: Float32Array
    ) -> Iterator[ProtocolResult]:
        """The same decisions by quality and by subgroup, where these were asked for."""
        unit: Unit = "identities" if self._pairs.names_people else "pairs"
        people = self._pairs.identities()
        decided = DecidedPairs(found.similarity, found.same, found.threshold, *people, unit)
        if self._by_quality:
            norms = (np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
            yield by_quality(decided, norms, name=f"{self.name} by quality")
        if self._groups is not None:
            groups = (self._groups[self._pairs.left], self._groups[self._pairs.right])
            yield by_group(decided, groups, name=f"{self.name} by subgroup")

    def _by_their_rule(self, left: Float32Array, right: Float32Array) -> ProtocolResult:
        scores, notes = bin_scores(left, right, self._pairs.same)
        kind = "one person" if self._pairs.same[0] else "two people"
        notes.append(
            f"all {len(self._pairs)} pairs are of {kind}: no threshold can be chosen on them"
        )
        return ProtocolResult(self.name, "insightface's rule alone", scores, notes)

    def _mistakes(self, found: Evaluation) -> Mistakes:
        worst, pairs = worst_errors(found, NUM_MISTAKES), self._pairs
        return Mistakes(
            left=pairs.source.load(pairs.left[worst]).numpy(),
            right=pairs.source.load(pairs.right[worst]).numpy(),
            similarity=found.similarity[worst],
            same=found.same[worst],
        )


def _is_bin_of_one_kind(pairs: PairSet) -> bool:
    """Then insightface's rule still gives a figure; ours does not."""
    return pairs.is_bin and len(np.unique(pairs.same)) == 1

"""Score an embedding function on a set of pairs: accuracy, AUC, TAR at FAR, each with its interval.

What the numbers must not be used for: docs/protocols.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError
from manyface.evaluate import bootstrap, metrics
from manyface.evaluate.bin_score import bin_scores
from manyface.evaluate.embed import EmbedFunction, embed_source
from manyface.evaluate.pairs import PairSet
from manyface.evaluate.result import Curve, ProtocolResult, Score, thinned, value_of
from manyface.parallel import ALONE, Ranks


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model on one set of pairs, and all that they were computed from."""

    scores: list[Score]
    similarity: npt.NDArray[np.float32]  # [P]
    same: npt.NDArray[np.bool_]  # [P]
    fold: npt.NDArray[np.int64]  # [P]
    threshold: npt.NDArray[np.float64]  # [P] that decided the pair, chosen on the other folds
    notes: list[str]  # what could not be measured, and why

    def value(self, name: str) -> float | None:
        """The value of the score `name`, None where it was not measured."""
        return value_of(self.scores, name)

    def as_result(self, name: str) -> ProtocolResult:
        """The same in the shape that all protocols have, with the ROC."""
        roc = metrics.roc_points(self.similarity, self.same)
        curve = thinned(Curve("", roc.far, roc.tar))
        return ProtocolResult(name, "verification of pairs", self.scores, self.notes, [curve])

    def summary(self) -> dict[str, Any]:
        """The fields of a run's result.json that come from its evaluation."""
        prefix = "tar@far="
        return {
            "verification_accuracy": self.value("accuracy"),
            "verification_std": self.value("accuracy_std"),
            "auc": self.value("auc"),
            "tar_at_far": {
                score.name.removeprefix(prefix): score.value
                for score in self.scores
                if score.name.startswith(prefix)
            },
        }


class PairEvaluator:
    """Built with pairs, called with an embedding function.

    Scores: `accuracy` and `accuracy_std` (mean and spread over folds), `auc`, `tar@far=F` for each
    of `fars` that the number of different pairs can show; of a .bin also insightface's figures
    (`bin_score.py`) when it is called, not by `score`. Intervals: bootstrap over identities or
    pairs (`bootstrap.py`), 95 %; `unit` left out means identities, pairs where nobody is named;
    `resamples=0` leaves them out.
    """

    def __init__(
        self,
        pairs: PairSet,
        fars: Sequence[float] = (1e-1, 1e-2, 1e-3),
        *,
        batch_size: int = 128,
        unit: bootstrap.Unit | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        num_same = int(np.count_nonzero(pairs.same))
        if not 0 < num_same < len(pairs):
            raise DataError(
                f"{pairs.name} has {num_same} pairs of one person and {len(pairs) - num_same} of "
                "two: to be judged by, a set needs both kinds"
            )
        if not all(0 < far <= 1 for far in fars):
            raise DataError(f"each FAR must be in (0, 1], got {list(fars)}")
        self.pairs = pairs
        self.batch_size = batch_size
        smallest = metrics.smallest_far(pairs.same)
        self.fars = [far for far in fars if far >= smallest * (1 - 1e-9)]
        self.notes = [_too_few(pairs, far) for far in fars if far not in self.fars]
        self.notes += _doubled(pairs)
        unit = unit or ("identities" if pairs.names_people else "pairs")
        left, right = pairs.identities()
        self._resampler = (
            bootstrap.Resampler(pairs.same, left, right, unit, resamples, seed)
            if resamples
            else None
        )

    def __call__(self, embed: EmbedFunction, ranks: Ranks = ALONE) -> Evaluation:
        """Of several `ranks` each embeds its share of the images, and all have the scores."""
        both = np.concatenate(self.pairs.distinct)  # [2P]
        embeddings = embed_source(
            embed, self.pairs.source, both, batch_size=self.batch_size, ranks=ranks
        )
        return self.judge(*np.split(embeddings, 2))

    def judge(self, left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Evaluation:
        """The evaluation of pairs whose embeddings, [P, D] each, are known."""
        found = self.score(metrics.cosine_scores(left, right).astype(np.float32))
        if not self.pairs.is_bin:
            return found
        scores, notes = bin_scores(left, right, self.pairs.same)
        return replace(found, scores=[*found.scores, *scores], notes=[*found.notes, *notes])

    def score(self, similarity: npt.NDArray[np.float32]) -> Evaluation:
        """The evaluation of pairs whose similarities [P] are known."""
        same, fold = self.pairs.same, self.pairs.fold
        folds = metrics.kfold_accuracy(similarity, same, fold)
        cuts = metrics.sort_into_cuts(similarity, same)
        per_pair = bootstrap.accuracy_weights(fold)

        def statistic(weights: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
            counted = per_pair if weights is None else per_pair * weights
            tally = metrics.tally(cuts, weights)
            values = [
                bootstrap.weighted_share(folds.correct, counted),
                metrics.auc_of_tally(tally),
                *(metrics.tar_at_far_of_tally(tally, far) for far in self.fars),
            ]
            return np.array(values)

        values = statistic(None)
        scores = self._with_intervals(values, *self._intervals(values, statistic))
        spread = Score("accuracy_std", folds.std, None, None, self._protocol("accuracy_std"))
        return Evaluation(
            scores=[scores[0], spread, *scores[1:]],
            similarity=similarity,
            same=same,
            fold=fold,
            threshold=folds.threshold_of_pair,
            notes=list(self.notes),
        )

    def _intervals(
        self, values: npt.NDArray[np.float64], statistic: bootstrap.Statistic
    ) -> tuple[list[float | None], list[float | None]]:
        if self._resampler is None:
            return [None] * len(values), [None] * len(values)
        low, high = bootstrap.bootstrap_intervals(self._resampler, statistic)
        num_same = int(np.count_nonzero(self.pairs.same))
        for k, count in enumerate([len(self.pairs), 0, *([num_same] * len(self.fars))]):
            if count and low[k] == high[k]:  # no error, or nothing but errors: see wilson_interval
                low[k], high[k] = bootstrap.wilson_interval(float(values[k]), count)
        return [float(x) for x in low], [float(x) for x in high]

    def _with_intervals(
        self,
        values: npt.NDArray[np.float64],
        low: Sequence[float | None],
        high: Sequence[float | None],
    ) -> list[Score]:
        names = ["accuracy", "auc", *(f"tar@far={far:g}" for far in self.fars)]
        return [
            Score(name, float(value), low[k], high[k], self._protocol(name))
            for k, (name, value) in enumerate(zip(names, values, strict=True))
        ]

    def _protocol(self, name: str) -> str:
        num_same = int(np.count_nonzero(self.pairs.same))
        size = f"{num_same} same and {len(self.pairs) - num_same} different pairs"
        folds = len(np.unique(self.pairs.fold))
        if name == "accuracy_std":
            return f"standard deviation over {folds} folds (divisor {folds}); {size}"
        how = {
            "accuracy": f"mean over {folds} folds, threshold chosen on the other folds",
            "auc": "area under the ROC curve, ties half",
        }.get(name, "at the lowest threshold whose FAR is not above the stated one")
        if self._resampler is None:
            return f"{how}; {size}"
        return (
            f"{how}; {size}; 95 % interval by bootstrap over {self._resampler.unit} "
            f"({self._resampler.resamples} resamples)"
        )


def _doubled(pairs: PairSet) -> list[str]:
    """A note of pairs of the same two images, in either order."""
    both = np.sort(np.stack(pairs.distinct, axis=1), axis=1)
    _, first, times = np.unique(both, axis=0, return_index=True, return_counts=True)
    if (times == 1).all():
        return []
    again, shown = int((times - 1).sum()), int(first[times > 1].min())
    return [
        f"{again} of the {len(pairs)} pairs of {pairs.name} are there more than once (as pair "
        f"{shown + 1}) and count as often"
    ]


def _too_few(pairs: PairSet, far: float) -> str:
    count = int(np.count_nonzero(~pairs.same))
    return (
        f"TAR at FAR {far:g} is not given for {pairs.name}: {count} different pairs can show "
        f"no FAR below {1 / max(count, 1):.2g}, and nothing is extrapolated"
    )

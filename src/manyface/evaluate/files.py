"""The files that an evaluation leaves in a run: scores of every pair, and pictures of its mistakes.

    evaluation/<set>.npz         similarity, same, fold, left, right; left_identity, right_identity
                                 where people are named, for intervals over them
    evaluation/<set>-errors.npz  left, right (uint8 [K, S, S, 3]), similarity, same, threshold

Plain arrays, read with allow_pickle=False. A file is written beside its place and renamed into it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.files import written
from manyface.evaluate.pairs import PairSet
from manyface.evaluate.verification import Evaluation

_PEOPLE = ("left_identity", "right_identity")


def write_evaluation(
    directory: Path, pairs: PairSet, evaluation: Evaluation, *, num_errors: int = 12
) -> None:
    """Write both files of a set into `directory` (a run's `evaluation` folder)."""
    people = dict(zip(_PEOPLE, pairs.identities(), strict=True)) if pairs.names_people else {}
    name = pairs.name.replace("/", "-")
    _save(
        directory / f"{name}.npz",
        similarity=evaluation.similarity,
        same=evaluation.same,
        fold=evaluation.fold,
        left=pairs.left,
        right=pairs.right,
        **people,
    )
    worst = worst_errors(evaluation, num_errors)
    _save(
        directory / f"{name}-errors.npz",
        left=pairs.source.load(pairs.left[worst]).numpy(),
        right=pairs.source.load(pairs.right[worst]).numpy(),
        similarity=evaluation.similarity[worst],
        same=evaluation.same[worst],
        threshold=evaluation.threshold[worst],
    )


def worst_errors(evaluation: Evaluation, count: int) -> npt.NDArray[np.int64]:
    """Indices of the `count` pairs decided wrongly by the widest distance to their threshold,
    farthest first: half of each kind (false accept, false reject) as far as there are so many."""
    distance = evaluation.similarity - evaluation.threshold  # [P] >= 0: accepted
    wrong = (distance >= 0) != evaluation.same
    order = np.argsort(-np.abs(distance), kind="stable")
    kinds = [order[wrong[order] & (evaluation.same[order] == kind)] for kind in (False, True)]
    half = count // 2
    accepts = max(count - half, count - len(kinds[1]))
    chosen = np.concatenate([kinds[0][:accepts], kinds[1]])[:count]
    return chosen[np.argsort(-np.abs(distance[chosen]), kind="stable")]


def _save(path: Path, **arrays: Any) -> None:
    with written(path) as file:
        np.savez_compressed(file, **arrays)

"""Evaluation during a run: every set of pairs, its scores as events, its files for the report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from manyface.evaluate import EmbedFunction, Evaluation, PairEvaluator, write_evaluation
from manyface.parallel import ALONE, Ranks, all_or_none
from manyface.train.recording import Recorder
from manyface.train.stop import StopFlag


class _Stopped(Exception):
    pass


class Validation:
    """Evaluates `embed` on each evaluator; the first set's accuracy chooses the best checkpoint.

    On the way the scores come without intervals, whose bootstrap takes seconds; the evaluation of
    the last step has them. A stop request ends an evaluation at its next batch; the resumed run
    begins it again. Several ranks share out the images, and each has all scores.
    """

    def __init__(
        self,
        evaluators: Sequence[PairEvaluator],
        embed: EmbedFunction,
        *,
        num_steps: int,
        directory: Path,
        recorder: Recorder,
        stop: StopFlag,
        ranks: Ranks = ALONE,
    ) -> None:
        self._ranks = ranks
        self._full, self._num_steps, self._directory = evaluators, num_steps, directory
        self._quick = [PairEvaluator(e.pairs, fars=e.fars, resamples=0) for e in evaluators]
        self._recorder = recorder
        # Ranks would have to agree on it with every batch: they stop after an evaluation.
        self._embed = _until_stopped(embed, stop) if ranks.is_alone else embed
        self.results: dict[str, Evaluation] = {}

    def __call__(self, step: int) -> float | None:
        """Scores of the net after `step` updates; None if there is no set, or on a stop."""
        try:
            for evaluator in self._full if step == self._num_steps else self._quick:
                self._evaluate(evaluator, step)
        except _Stopped:
            return None
        return next((e.value("accuracy") for e in self.results.values()), None)

    def _evaluate(self, evaluator: PairEvaluator, step: int) -> None:
        name = evaluator.pairs.name
        with self._recorder.doing(f"evaluating {name}"):
            found = self.results[name] = evaluator(self._embed, self._ranks)
        with all_or_none(self._ranks, "evaluation files"):
            if self._ranks.rank == 0:
                write_evaluation(self._directory, evaluator.pairs, found)
        self._recorder.write("evaluation", step=step, set=name, scores=scores_of(found))
        self._recorder.say(f"step {step}: {summary_line(name, found)}")


def scores_of(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The scores as plain dicts, for events and result.json."""
    return [asdict(score) for score in evaluation.scores]


def summary_line(name: str, evaluation: Evaluation) -> str:
    """A set's scores in one line."""
    return f"{name}: " + "  ".join(f"{s.name} {s.value:.4f}" for s in evaluation.scores)


def _until_stopped(embed: EmbedFunction, stop: StopFlag) -> Callable[[Tensor], Tensor]:
    def guarded(images: Tensor) -> Tensor:
        if stop.received:
            raise _Stopped
        return embed(images)

    return guarded

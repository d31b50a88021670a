"""Thresholds: exact at ties and at the ends, and of which checkpoint and pairs they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import manyface.model.measured as measured
from manyface.base.errors import DataError
from manyface.evaluate import metrics
from manyface.model import Threshold, load, threshold_at_far
from manyface.model.measured import faces_of_run, synthetic_faces, threshold_of_run

SCORES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: {same for _, same in pairs} == {True, False}
)


@given(SCORES, st.integers(1, 10))
def test_the_lowest_threshold_that_keeps_to_the_far(pairs, accepted):
    similarity = np.array([score / 10 for score, _ in pairs], np.float32)
    same = np.array([is_same for _, is_same in pairs])
    different = similarity[~same]
    far = min(1.0, accepted / len(different))
    found = threshold_at_far(similarity, same, far, name="set")
    assert (different >= found.value).sum() <= far * len(different) + 1e-9
    lower = similarity[similarity < found.value]
    if len(lower):
        assert (different >= lower.max()).sum() > far * len(different) + 1e-9
    assert found.tar == metrics.tar_at_far(similarity, same, far)
    assert found.tar == (similarity[same] >= found.value).mean()
    assert (found.num_same, found.num_different) == (same.sum(), (~same).sum())


@pytest.mark.parametrize("far, message", [(1e-3, "20 different pairs, .* 0.05"), (0, "above 0")])
def test_a_far_that_cannot_be_seen(far, message):
    similarity, same = np.linspace(0, 1, 40, dtype=np.float32), np.arange(40) % 2 == 0
    with pytest.raises(DataError, match=message):
        threshold_at_far(similarity, same, far, name="set")


def silent(text: str) -> None:
    pass


def test_a_run_uses_its_evaluation_where_it_is_of_that_checkpoint(trained_run, monkeypatch):
    checkpoints = trained_run / "checkpoints"
    anew = threshold_of_run(
        trained_run,
        checkpoints / "step-00000008",
        0.1,
        overrides=["evaluation.folds=2"],
        warn=silent,
    )
    older = threshold_of_run(trained_run, checkpoints / "step-00000006", 0.1, warn=silent)
    assert isinstance(older, Threshold)
    monkeypatch.setattr(measured, "evaluate_run", None)  # what follows reads files only
    stored = threshold_of_run(trained_run, checkpoints / "step-00000008", 0.1, warn=silent)
    assert stored is not None
    assert anew is not None
    assert (stored.measured_on, stored.num_same, stored.num_different) == ("synthetic", 40, 40)
    assert stored.value == pytest.approx(anew.value, abs=1e-5)
    assert older.value != stored.value


def test_a_threshold_is_that_of_the_model_that_is_opened(trained_run):
    """The similarities behind it are those that `embed_batch` gives."""
    model = load(trained_run, device="cpu")
    found = threshold_of_run(
        trained_run, trained_run / "checkpoints" / "step-00000008", 0.1, warn=silent
    )
    with np.load(trained_run / "evaluation" / "synthetic.npz") as stored:
        left, right, same = stored["left"], stored["right"], stored["same"]
    from manyface.train.build_pairs import build_pairs
    from manyface.train.scoring import read_run_config

    source = build_pairs(read_run_config(trained_run), warn=silent).source
    one, two = (model.embed_batch(source.load(side)).numpy() for side in (left, right))
    accepted = (one * two).sum(axis=1) >= found.value - 1e-6
    assert accepted[~same].mean() <= 0.1 + 1e-9
    assert accepted[same].mean() == pytest.approx(found.tar, abs=1e-9)


def test_a_run_knows_its_threshold_where_its_evaluation_can_show_it(trained_run, monkeypatch):
    checkpoint = trained_run / "checkpoints" / "step-00000008"
    assert load(trained_run, device="cpu").threshold is None, "40 different pairs show no 1e-3"
    monkeypatch.setattr(measured, "USUAL_FAR", 0.1)
    found = load(trained_run, device="cpu").threshold
    assert found == threshold_of_run(trained_run, checkpoint, warn=silent)
    assert load(trained_run, device="cpu", checkpoint="step-00000006").threshold is None


def test_faces_to_compare_on(trained_run):
    assert faces_of_run(trained_run, warn=silent, count=9).shape == (9, 32, 32, 3)
    assert synthetic_faces(48, count=4).shape == (4, 48, 48, 3)

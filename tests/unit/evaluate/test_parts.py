"""Accuracy by subgroup and by quality: against masks, with empty and one-sided parts."""

import numpy as np
import pytest

from manyface.base.errors import ManyfaceError
from manyface.base.random import numpy_generator
from manyface.evaluate.parts import DecidedPairs, by_group, by_parts, by_quality

PAIRS = 400


@pytest.fixture
def pairs() -> dict[str, np.ndarray]:
    rng = numpy_generator(0, "parts")
    same = np.arange(PAIRS) % 2 == 0
    left = rng.integers(0, 60, PAIRS)
    right = np.where(same, left, (left + 1) % 60)
    norms = rng.uniform(1, 20, (2, PAIRS))
    noise = 6 / np.minimum(*norms)  # short embeddings are unsure
    similarity = np.where(same, 0.6, 0.0) + noise * 0.2 * rng.normal(size=PAIRS)
    return {
        "similarity": similarity.astype(np.float32),
        "same": same,
        "left": left,
        "right": right,
        "norms": norms,
    }


def decided(pairs: dict[str, np.ndarray], **changed: object) -> DecidedPairs:
    given = {name: pairs[name] for name in ("similarity", "same", "left", "right")}
    return DecidedPairs(**({"threshold": 0.3} | given | changed))


def test_quality_is_by_the_smaller_length(pairs: dict[str, np.ndarray]) -> None:
    result = by_quality(decided(pairs), tuple(pairs["norms"]), name="x", resamples=100)
    worse = pairs["norms"].min(axis=0)
    order = np.argsort(worse)
    accepted = pairs["similarity"] >= 0.3
    assert len(result.scores) == 30
    for mine in np.array_split(order, 10):
        same = pairs["same"][mine]
        part = f"[norm {worse[mine].min():.4g} to {worse[mine].max():.4g}]"
        expected = {
            "accuracy": np.mean(accepted[mine] == same),
            "tar": np.mean(accepted[mine][same]),
            "far": np.mean(accepted[mine][~same]),
        }
        for name, value in expected.items():
            score = next(s for s in result.scores if s.name == f"{name} {part}")
            assert score.value == pytest.approx(value, abs=1e-12)
            assert score.low <= score.value <= score.high
    accuracies = [s.value for s in result.scores if s.name.startswith("accuracy")]
    assert accuracies[0] < 0.9 < accuracies[-1]


def test_equal_lengths_stay_together(pairs: dict[str, np.ndarray]) -> None:
    norms = np.where(np.arange(PAIRS) < 300, 1.0, 2.0)
    result = by_quality(decided(pairs), (norms, norms), name="x", resamples=0)
    assert [s.name for s in result.scores if "accuracy" in s.name] == [
        "accuracy [norm 1 to 1]",
        "accuracy [norm 2 to 2]",
    ]
    assert "there are 2 parts of 10" in result.notes[-1]
    assert all(score.low is None for score in result.scores)


def test_groups_are_pairs_within_them(pairs: dict[str, np.ndarray]) -> None:
    of_person = np.where(np.arange(60) < 20, "north", np.where(np.arange(60) < 40, "south", ""))
    groups = of_person[pairs["left"]], of_person[pairs["right"]]
    threshold = np.full(PAIRS, 0.3)
    result = by_group(decided(pairs, threshold=threshold), groups, name="x", resamples=50)
    for group in ("north", "south"):
        mine = (groups[0] == group) & (groups[1] == group)
        right = (pairs["similarity"][mine] >= 0.3) == pairs["same"][mine]
        assert result.value(f"accuracy [{group}]") == pytest.approx(right.mean(), abs=1e-12)
    without = np.sum((groups[0] != groups[1]) | (groups[0] == ""))
    assert f"{without} pairs are within no subgroup" in result.notes


def test_parts_of_one_kind_or_none_are_said(pairs: dict[str, np.ndarray]) -> None:
    part = np.where(pairs["same"], 0, -1)
    names = ["alike", "nobody"]
    result = by_parts(decided(pairs), part, names, name="x", protocol="p", resamples=20)
    assert [score.name for score in result.scores] == ["accuracy [alike]", "tar [alike]"]
    assert result.scores[0].low < result.scores[0].value < result.scores[0].high
    assert "alike has 200 same and 0 different pairs" in result.notes[0]
    assert "nobody has 0 same and 0 different" in result.notes[1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"part": np.zeros(3, int)}, "one value for each of 400 pairs"),
        ({"part": np.full(PAIRS, 2)}, "parts are -1 to 0, got 2"),
        ({"left": np.zeros(3, int)}, "one value for each pair"),
        ({"threshold": np.zeros(3)}, "one value for each pair"),
        ({"similarity": np.full(PAIRS, np.nan)}, "similarity of pair 0 is not finite"),
    ],
)
def test_wrong_lengths_and_parts_are_said(
    pairs: dict[str, np.ndarray], change: dict[str, np.ndarray], message: str
) -> None:
    part = change.pop("part", np.zeros(PAIRS, int))
    with pytest.raises(ManyfaceError, match=message):
        by_parts(decided(pairs, **change), part, ["a"], name="x", protocol="p")


@pytest.mark.parametrize(
    "norms, message",
    [
        (np.full(PAIRS, np.nan), "embedding length of pair 0 is not finite"),
        (np.full(PAIRS, -1.0), "pair 0 is negative"),
        (np.ones(3), "two lengths for each"),
    ],
)
def test_lengths_that_cannot_be_are_said(
    pairs: dict[str, np.ndarray], norms: np.ndarray, message: str
) -> None:
    with pytest.raises(ManyfaceError, match=message):
        by_quality(decided(pairs), (norms, norms), name="x")


def test_nobody_is_drawn_where_nobody_is_named(pairs: dict[str, np.ndarray]) -> None:
    """One nameless person has every image: drawn over people, all resamples would be one."""
    nobody, norms = np.zeros(PAIRS, int), tuple(pairs["norms"])
    drawn = decided(pairs, left=nobody, right=nobody, unit="pairs")
    over_pairs = by_quality(drawn, norms, name="x", parts=1).scores[0]
    over_people = by_quality(decided(pairs), norms, name="x", parts=1).scores[0]
    assert over_pairs.value == over_people.value
    assert (over_pairs.low, over_pairs.high) != (over_people.low, over_people.high)

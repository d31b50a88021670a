"""All against all: exactly what brute force over every pair finds, ties and ends of blocks too."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError, ManyfaceError
from manyface.base.random import numpy_generator
from manyface.evaluate import all_pairs, blocks, metrics, tails
from manyface.evaluate.all_pairs import _Genuine, all_pairs_result, scan_all_pairs
from manyface.evaluate.bootstrap import times_drawn

FARS = (1.0, 0.3, 0.1, 0.01, 1e-3, 1e-4)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "ROWS", 7)
    monkeypatch.setattr(all_pairs, "COLUMNS", 11)


def coded(seed: int, images: int, people: int, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 16 values -1, 1: products are whole sixteenths, exact in float32, with many ties."""
    rng = numpy_generator(seed, "coded")
    labels = rng.integers(0, people, images)
    code = rng.choice([-1.0, 1.0], size=(people, dim))
    flip = np.where(rng.random((images, dim)) < 0.2, -1.0, 1.0)
    return (code[labels] * flip).astype(np.float32), labels * 10 + 3


def every_pair(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unit = blocks.unit_rows(embeddings, "x")
    row, column = np.triu_indices(len(labels), 1)
    return (unit @ unit.T)[row, column], labels[row] == labels[column]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    images=st.integers(2, 60),
    people=st.integers(1, 30),
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
)
def test_every_tar_is_that_of_brute_force(
    seed: int, images: int, people: int, rows: int, columns: int
) -> None:
    embeddings, labels = coded(seed, images, people)
    similarity, same = every_pair(embeddings, labels)
    columns += rows  # a block holds its own part of the diagonal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "ROWS", rows)
        patch.setattr(all_pairs, "COLUMNS", columns)
        tail = scan_all_pairs(embeddings, labels, fars=FARS).tail
    assert tail.num_impostors == (~same).sum()
    np.testing.assert_array_equal(tail.genuine, -np.sort(-similarity[same]))
    np.testing.assert_array_equal(
        tail.impostors, -np.sort(-similarity[~same])[: len(tail.impostors)]
    )
    if same.any() and not same.all():
        for far in FARS:
            if metrics.allowed_impostors(far, tail.num_impostors):
                assert tails.tail_tar(tail, far) == metrics.tar_at_far(similarity, same, far)


def test_random_embeddings_of_5000_images_equal_brute_force() -> None:
    rng = numpy_generator(0, "all pairs")
    labels = rng.integers(0, 600, 5000)
    centers = rng.normal(size=(600, 64))
    embeddings = (centers[labels] + 1.5 * rng.normal(size=(5000, 64))).astype(np.float32)
    similarity, same = every_pair(embeddings, labels)
    tail = scan_all_pairs(embeddings, labels, fars=(1e-3, 1e-6)).tail
    impostors, genuine = np.sort(similarity[~same])[::-1], similarity[same]
    for far in (1e-3, 1e-4, 1e-5, 1e-6):
        exact = impostors[metrics.allowed_impostors(far, len(impostors))]
        # The products are float32 and were made in other blocks.
        assert tails.tail_threshold(tail, far) == pytest.approx(exact, abs=2e-7)
        unsure = np.mean(np.abs(genuine - exact) < 1e-6)
        expected = np.mean(genuine > exact)
        assert tails.tail_tar(tail, far) == pytest.approx(expected, abs=unsure + 1e-12)


def test_the_kept_impostors_are_of_the_people_named() -> None:
    embeddings, labels = coded(1, 50, 12)
    found = scan_all_pairs(embeddings, labels, fars=(0.2,))
    unit = blocks.unit_rows(embeddings, "x")
    for score, left, right in zip(
        found.tail.impostors, found.tail.left, found.tail.right, strict=True
    ):
        mine, other = labels == found.people[left], labels == found.people[right]
        assert left != right
        assert score in (unit[mine] @ unit[other].T)


@pytest.mark.usefixtures("small_blocks")
def test_few_are_kept_and_found_again() -> None:
    top = blocks.TopScores(5)
    rng = numpy_generator(0, "top")
    scores = rng.normal(size=(40, 30)).astype(np.float32)
    for row in range(0, 40, 7):
        top.add(torch.from_numpy(scores[row : row + 7].copy()), row, 0)
    found, rows, columns = top.falling()
    np.testing.assert_array_equal(found, -np.sort(-scores.ravel())[:5])
    np.testing.assert_array_equal(scores[rows, columns], found)


def test_subgroups_are_scored_among_themselves() -> None:
    embeddings, labels = coded(2, 120, 20)
    groups = np.where(labels % 3 == 0, "north", np.where(labels % 3 == 1, "south", ""))
    seen: list[tuple[int, int]] = []
    result = all_pairs_result(
        embeddings,
        labels,
        groups=groups,
        fars=(0.1, 1e-6),
        name="set",
        resamples=50,
        progress=lambda done, total: seen.append((done, total)),
    )
    for group in ("north", "south"):
        mine = groups == group
        expected = metrics.tar_at_far(*every_pair(embeddings[mine], labels[mine]), 0.1)
        assert result.value(f"tar@far=0.1 [{group}]") == expected
    everyone = metrics.tar_at_far(*every_pair(embeddings, labels), 0.1)
    assert result.value("tar@far=0.1") == everyone
    assert [curve.name for curve in result.curves] == ["", "north", "south"]
    assert all((np.diff(curve.far) >= 0).all() for curve in result.curves)
    assert sum("can show no FAR below" in note for note in result.notes) == 3
    assert result.as_dict()["scores"][0]["low"] <= everyone <= result.scores[0].high
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] <= seen[-1][1]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Over fresh draws of people, the interval holds the TAR of very many people."""
    rng = numpy_generator(3, "coverage")

    def draw(people: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(people), 4)
        hard = rng.uniform(0.4, 2.2, people)  # some people are alike in none of their images
        center = rng.normal(size=(people, 24))
        noise = hard[labels, None] * rng.normal(size=(len(labels), 24))
        return (center[labels] + noise).astype(np.float32), labels

    truth = tails.tail_tar(scan_all_pairs(*draw(1500), fars=(1e-2,)).tail, 1e-2)
    held = 0
    for _ in range(40):
        tail = scan_all_pairs(*draw(60), fars=(1e-2,)).tail
        ((low, high),), _ = tails.tail_intervals(tail, (1e-2,), resamples=100)
        held += low <= truth <= high
    assert held >= 32


def test_one_person_or_one_image_each_is_said() -> None:
    embeddings, _ = coded(0, 20, 5)
    for of_one in (np.zeros(20, int), np.arange(20)):
        result = all_pairs_result(embeddings, of_one, name="x")
        assert not result.scores
        assert "trials of both kinds" in result.notes[0]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e, n: (e[:-1], n), "19 embeddings and 20 labels"),
        (lambda e, n: (np.where(np.arange(20)[:, None] == 3, np.nan, e), n), "embedding .* finite"),
        (lambda e, n: (np.where(np.arange(20)[:, None] == 3, 0, e), n), "has length 0"),
        (lambda e, n: (e.astype(int), n), "expected embeddings as floats"),
        (lambda e, n: (e[:, 0], n), "expected embeddings as floats"),
    ],
)
def test_unusable_embeddings_are_said(change: object, message: str) -> None:
    embeddings, labels = coded(0, 20, 5)
    with pytest.raises(ManyfaceError, match=message):
        scan_all_pairs(*change(embeddings, labels))  # type: ignore[operator]


def test_more_than_may_be_kept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "_LEAST_LISTED", 0)
    embeddings, labels = coded(0, 40, 5)
    with pytest.raises(DataError, match=r"genuine pairs, whose scores are all kept; expected 10"):
        scan_all_pairs(embeddings, labels, max_genuine=10)
    with pytest.raises(DataError, match=r"FAR 0.5 of 780 .* needs the 780 .* up to 0.001"):
        scan_all_pairs(embeddings, np.arange(40), fars=(0.5,), max_impostors=10)
    scan_all_pairs(embeddings, np.arange(40), fars=(0.001,), max_impostors=10)
    tail = scan_all_pairs(embeddings, labels, fars=(0.01,)).tail
    with pytest.raises(DataError, match="were kept"):
        tails.tail_threshold(tail, 0.5)


def test_a_person_in_two_subgroups_is_said() -> None:
    embeddings, labels = coded(0, 20, 5)
    groups = np.where(np.arange(20) < 10, "a", "b")
    with pytest.raises(DataError, match="in several subgroups"):
        all_pairs_result(embeddings, labels, groups=groups, name="x")
    with pytest.raises(DataError, match="19 subgroups for 20 images"):
        all_pairs_result(embeddings, labels, groups=groups[1:], name="x")


def test_genuine_scores_are_kept_in_falling_order_with_their_people() -> None:
    """The bits of a score sort as the score does, zeros and both signs included."""
    rng = np.random.default_rng(0)
    scores = np.append(rng.uniform(-1, 1, 200), [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40])
    scores, people = scores.astype(np.float32), np.arange(206, dtype=np.int32)
    kept = _Genuine(206)
    for part in (slice(0, 90), slice(90, 90), slice(90, 206)):
        kept.add(torch.from_numpy(scores[part]), torch.from_numpy(people[part]))
    falling, whose = kept.falling()
    np.testing.assert_array_equal(falling, np.sort(scores)[::-1])
    np.testing.assert_array_equal(scores[whose], falling)
    few = _Genuine(206)
    few.add(torch.from_numpy(scores[:200]), torch.from_numpy(people[:200]))
    with pytest.raises(RuntimeError, match="200 of 206"):
        few.falling()


def brute_intervals(tail: tails.Tail, far: float, resamples: int, seed: int) -> np.ndarray:
    """Every resample by itself, each pair with its weight."""
    generator = numpy_generator(seed, "bootstrap", "tail")
    found = []
    for _ in range(resamples):
        times = times_drawn(generator, tail.num_people)
        weight = times[tail.left] * times[tail.right]
        of_genuine = times[tail.genuine_people]
        allowed = far * tail.impostor_weight(times)
        limits = [t for t in tail.impostors if weight[tail.impostors >= t].sum() > allowed + 1e-9]
        if of_genuine.any() and tail.impostor_weight(times) > 0:
            above = tail.genuine > max(limits, default=-np.inf)
            found.append(of_genuine[above].sum() / of_genuine.sum())
    return np.quantile(found, [0.025, 0.975])


def test_intervals_equal_resamples_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = coded(3, 60, 9)
    tail = scan_all_pairs(embeddings, labels, fars=(0.2,)).tail
    monkeypatch.setattr(tails, "_TIMES_AT_ONCE", 4 * tail.num_people)  # and draws in parts
    found, _ = tails.tail_intervals(tail, [0.2, 0.02], resamples=30, seed=5)
    for far, ends in zip((0.2, 0.02), found, strict=True):
        np.testing.assert_allclose(ends, brute_intervals(tail, far, 30, 5), atol=1e-12)

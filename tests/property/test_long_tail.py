"""Long-tailed synthetic faces: what must hold of counts and index for every size, mean and tail."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError
from manyface.data import Augmentation, DualLoader, Loader
from manyface.data.synthetic import SyntheticFaces
from manyface.data.synthetic.counts import ListedCounts, long_tailed_counts, ranked_counts

TAILS = st.one_of(st.floats(1e-6, 1e6), st.sampled_from([1e-300, 1.0, 100.0, 1e6]))


def faces(people: int = 40, mean: int = 4, **options: object) -> SyntheticFaces:
    arguments = {"image_size": 32, "long_tail": 100.0, **options}
    return SyntheticFaces(num_identities=people, images_per_identity=mean, **arguments)


def counts_of(source: SyntheticFaces) -> np.ndarray:
    return source.images_of(np.arange(source.num_identities))[1]


@settings(max_examples=150, deadline=None)
@given(people=st.integers(1, 700), mean=st.integers(2, 60), tail=TAILS)
def test_counts_have_their_mean_and_nobody_is_without_a_picture(people, mean, tail):
    counts = ranked_counts(people, mean=mean, long_tail=tail)
    assert counts.dtype == np.int64
    assert counts.sum() == people * mean
    assert counts.min() >= 1
    assert (np.diff(counts) <= 0).all()
    shuffled = long_tailed_counts(people, mean=mean, long_tail=tail, seed=people)
    assert np.array_equal(np.sort(shuffled), counts[::-1])


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_the_index_is_that_of_a_walk(counts):
    index = ListedCounts(np.array(counts))
    walk = [(who, picture) for who, count in enumerate(counts) for picture in range(count)]
    assert index.total == len(walk)
    identities, pictures = index.locate(np.arange(index.total))
    assert list(zip(identities.tolist(), pictures.tolist(), strict=True)) == walk
    first, number = index.images_of(np.arange(len(counts)))
    assert number.tolist() == counts
    assert [walk[k] for k in first.tolist()] == [(who, 0) for who in range(len(counts))]


@settings(max_examples=30, deadline=None)
@given(people=st.integers(2, 300), mean=st.integers(2, 12), tail=TAILS, seed=st.integers(0, 2**40))
def test_records_of_a_person_are_neighbours_and_agree_whatever_is_asked(people, mean, tail, seed):
    source = faces(people, mean, long_tail=tail, seed=seed)
    labels = source.labels(np.arange(len(source)))
    assert len(source) == people * mean
    first, counts = source.images_of(np.arange(people))
    assert np.array_equal(labels, np.repeat(np.arange(people), counts))
    assert np.array_equal(source.labels(first), np.arange(people))
    order = np.random.default_rng(seed).permutation(people)
    again = source.images_of(order)
    assert np.array_equal(again[0], first[order])
    assert np.array_equal(again[1], counts[order])
    some = order[: people // 2]
    alone = [source.images_of(np.array([who]))[1][0] for who in some.tolist()]
    assert alone == counts[some].tolist()


def test_the_figures_of_the_docs():
    counts = counts_of(faces(6000, 10))
    head = np.sort(counts)[-600:].sum() / counts.sum()
    assert (counts == 1).mean() == pytest.approx(0.28, abs=0.005)
    assert (counts <= 3).mean() == pytest.approx(0.54, abs=0.005)
    assert head == pytest.approx(0.61, abs=0.005)
    assert counts.max() == 258


def test_counts_never_change():
    """Like pixels: a run must find its data again on any machine."""
    counts = counts_of(faces(12, 5))
    assert counts.tolist() == [1, 1, 1, 1, 2, 3, 6, 4, 2, 10, 28, 1]


def test_a_longer_tail_gives_the_head_more():
    heads = [ranked_counts(1000, mean=10, long_tail=tail)[:100].sum() for tail in (1, 10, 100, 1e6)]
    assert heads == sorted(heads)
    assert heads[0] > 2000  # of 10,000: more than twice an equal share
    nearly_off = ranked_counts(1000, mean=10, long_tail=1e-300)
    assert nearly_off.max() <= 21  # a straight line from 1 to about twice the mean


def test_the_number_of_a_person_says_nothing_of_the_count():
    counts = counts_of(faces(20_000, 10)).astype(np.float64)
    logs = np.log(counts)
    for order in (np.arange(20_000), np.arange(20_000) % 2, np.roll(logs, 1)):
        assert abs(np.corrcoef(order, logs)[0, 1]) < 4 / np.sqrt(20_000)


def test_seeds_and_ranges_differ_and_repeat():
    one = counts_of(faces())
    assert np.array_equal(one, counts_of(faces()))
    for other in (faces(seed=1), faces(first_identity=40)):
        assert not np.array_equal(one, counts_of(other))
        assert np.array_equal(np.sort(one), np.sort(counts_of(other)))


def test_a_picture_is_the_same_as_without_the_tail():
    tailed, equal = faces(), faces(mean=30, long_tail=0)
    first, counts = tailed.images_of(np.arange(40))
    people = np.array([int(counts.argmax()), int(counts.argmin()), 0, 39])
    last = np.minimum(counts[people], 30) - 1
    wanted = equal.load(people * 30 + last)
    assert torch.equal(tailed.load(first[people] + last), wanted)


def test_without_a_tail_all_is_as_it_was():
    equal = SyntheticFaces(num_identities=10**9, images_per_identity=7, image_size=32)
    records = np.array([0, 6, 7, 7 * 10**9 - 1])
    assert equal.labels(records).tolist() == [0, 0, 1, 10**9 - 1]
    first, counts = equal.images_of(np.array([0, 5, 10**9 - 1]))
    assert first.tolist() == [0, 35, 7 * (10**9 - 1)]
    assert counts.tolist() == [7, 7, 7]


def test_memory_is_eight_bytes_a_person():
    index = ListedCounts(long_tailed_counts(10_000, mean=10, long_tail=100, seed=0))
    arrays = [value for value in vars(index).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 8 * 10_001
    assert all(array.base is None for array in arrays)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_people_with_one_picture_go_through_both_loaders(share: float):
    source = faces(30, 3, long_tail=1e4)
    counts = counts_of(source)
    assert (counts == 1).sum() > 5
    options = {"batch_size": 8, "seed": 0, "augmentation": Augmentation(), "prefetch": 0}
    dual = DualLoader(source, identity_share=share, **options)
    for loader in (dual, Loader(source, **options)):
        batches = list(loader.batches(0, 15))  # an epoch of images, or a pass over the pairs
        shown = torch.cat([batch.labels for batch in batches]).numpy()
        assert all(batch.images.isfinite().all() for batch in batches)
        assert set(shown.tolist()) == set(range(30))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"long_tail": -1.0}, r"long_tail must be within \[0, 1000000.0\], got -1"),
        ({"long_tail": float("nan")}, "long_tail must be within"),
        ({"long_tail": 2e6}, "long_tail must be within"),
        ({"mean": 1}, "images_per_identity is 1, so all have one; set images_per_identity to 2"),
        ({"people": 2**28 + 1}, "num_identities with a long_tail must be within"),
        (
            {"people": 3000, "mean": 4 * 10**6, "long_tail": 1e6},
            "the most images of one identity must be within",
        ),
    ],
)
def test_tails_that_cannot_be_had(changes: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        faces(**changes)

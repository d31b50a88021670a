"""Several sets: shares in any stretch of positions, turns without a gap, the same from anywhere."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import Noise

from manyface.base.errors import ConfigError
from manyface.data import BlockSampler, EpochSampler, Mixture, MixtureSampler, Shares

WEIGHTS = st.lists(st.integers(1, 10**6), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(weights=WEIGHTS, first=st.integers(0, 2**44), count=st.integers(1, 300))
def test_every_stretch_has_each_set_by_its_share(weights, first, count):
    shares = Shares(weights)
    sets, turns = shares.of(np.arange(first, first + count))
    starts, stops = shares.before(first), shares.before(first + count)
    total = sum(shares.numbers)
    for number, weight in enumerate(shares.numbers):
        mine = turns[sets == number]
        assert mine.tolist() == list(range(starts[number], stops[number]))
        bound = 1 if len(weights) <= 2 else 2 + math.log(len(weights))
        assert abs(len(mine) - count * weight / total) < bound
    assert sum(starts) == first


@settings(max_examples=100, deadline=None)
@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=6), rounds=st.integers(0, 10**9))
def test_a_round_of_all_shares_is_exact(weights, rounds):
    shares = Shares(weights)
    first, total = rounds * sum(shares.numbers), sum(shares.numbers)
    sets, _ = shares.of(np.arange(first, first + total))
    assert np.bincount(sets, minlength=len(weights)).tolist() == shares.numbers
    ratios = [number / weight for number, weight in zip(shares.numbers, weights, strict=True)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_weights_are_exact_where_they_can_be():
    assert Shares([0.7, 0.2, 0.1]).numbers == [7, 2, 1]
    assert Shares([30, 20]).numbers == [30, 20]
    large = Shares([17_000_000_000, 3, 1e-12]).numbers
    assert 2**29 < sum(large) <= 2**31
    assert min(large) == 1
    sets, _ = Shares([7, 3]).of(np.arange(1000))
    assert [(sets[k : k + 10] == 0).sum() for k in range(0, 1000, 10)] == [7] * 100
    with pytest.raises(ConfigError, match="above 0"):
        Shares([1, 0])


def sampler_of(sizes: list[int], weights: list[int], seed: int = 1) -> MixtureSampler:
    orders = [
        EpochSampler if number % 2 else partial(BlockSampler, block_size=3, window=2)
        for number in range(len(sizes))
    ]
    return MixtureSampler(sum(sizes), seed=seed, sizes=sizes, shares=Shares(weights), orders=orders)


@settings(max_examples=25, deadline=None)
@given(
    sets=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=5),
    seed=st.integers(0, 2**60),
)
def test_each_set_goes_through_epochs_of_its_own(sets, seed):
    sizes, weights = [size for size, _ in sets], [weight for _, weight in sets]
    sampler = sampler_of(sizes, weights, seed)
    found = sampler.indices(np.arange(300))
    alone = [int(sampler.indices(np.array([position]))[0]) for position in range(0, 300, 17)]
    assert found[::17].tolist() == alone
    borders = np.concatenate([[0], np.cumsum(sizes)])
    for number, size in enumerate(sizes):
        mine = found[(found >= borders[number]) & (found < borders[number + 1])] - borders[number]
        for first in range(0, len(mine) - size + 1, size):
            assert sorted(mine[first : first + size].tolist()) == list(range(size))


def test_shares_of_images_make_one_epoch_of_all():
    sizes = [7, 50, 13]
    found = sampler_of(sizes, sizes).indices(np.arange(140))
    assert sorted(found[:70].tolist()) == sorted(found[70:].tolist()) == list(range(70))


def test_what_is_read_was_asked_for():
    sampler = MixtureSampler(
        90,
        seed=2,
        sizes=[30, 60],
        shares=Shares([1, 1]),
        orders=[partial(BlockSampler, block_size=4, window=2)] * 2,
    )
    asked: set[int] = set()
    for step in range(30):
        asked |= set(sampler.ahead(33 + step * 7, 7, begins=step == 0).tolist())
        assert set(sampler.indices(np.arange(33 + step * 7, 40 + step * 7)).tolist()) <= asked


class Named(Noise):
    """Noise whose people and images can be told apart from another set's."""

    def __init__(self, length: int, prefix: str) -> None:
        super().__init__(length)
        self.name = prefix
        self.identity_names = [f"{prefix}{k}" for k in range(self.num_identities)]

    def images_of(self, identities):
        return identities * 3, np.full_like(identities, 3)

    def from_storage(self, places):
        return self.length - 1 - places

    def load(self, indices, out=None):
        return super().load(indices + 7 * len(self.name), out)


def test_a_mixture_is_one_source():
    one, two = Named(9, "a"), Named(12, "bb")
    mixture = Mixture([one, two])
    assert (len(mixture), mixture.num_identities, mixture.name) == (21, 7, "a + bb")
    assert list(mixture.identity_names) == ["a0", "a1", "a2", "bb0", "bb1", "bb2", "bb3"]
    assert mixture.identity_names[-1] == "bb3"
    indices = np.array([20, 0, 9, 8])
    assert mixture.labels(indices).tolist() == [6, 0, 3, 2]
    images = mixture.load(indices)
    assert np.array_equal(images[1], one.load(np.array([0]))[0])
    assert np.array_equal(images[0], two.load(np.array([11]))[0])
    first, count = mixture.images_of(np.array([2, 4]))
    assert first.tolist() == [6, 12]
    assert count.tolist() == [3, 3]
    assert mixture.from_storage(np.array([0, 9])).tolist() == [8, 20]
    with pytest.raises(IndexError, match="records are 0 to 20"):
        mixture.load(np.array([21]))

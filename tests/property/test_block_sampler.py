"""Block shuffle for every length, block, window: each record once, few blocks at a time, and what
it asks the disk for is what comes next."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.data import BlockSampler

SEEDS = st.integers(0, 2**63 - 1)
LAYOUTS = {
    "length": st.integers(1, 400),
    "block_size": st.integers(1, 60),
    "window": st.integers(1, 12),
    "seed": SEEDS,
}


def sampler_of(length: int, block_size: int, window: int, seed: int) -> BlockSampler:
    return BlockSampler(length, seed=seed, block_size=block_size, window=window)


@settings(max_examples=200, deadline=None)
@given(epoch=st.integers(0, 10**6), **LAYOUTS)
def test_each_epoch_is_a_permutation(epoch, length, **layout):
    sampler = sampler_of(length, **layout)
    found = sampler.indices(np.arange(length) + epoch * length)
    np.testing.assert_array_equal(np.sort(found), np.arange(length))


@settings(max_examples=100, deadline=None)
@given(positions=st.lists(st.integers(0, 10**7), max_size=40), **LAYOUTS)
def test_any_question_gives_the_same_answer(positions, **layout):
    sampler = sampler_of(**layout)
    together = sampler.indices(np.array(positions, dtype=np.int64))
    alone = [int(sampler.indices(np.array([position]))[0]) for position in positions]
    assert together.tolist() == alone


@settings(max_examples=100, deadline=None)
@given(**LAYOUTS)
def test_a_window_holds_whole_blocks_and_no_others(length, block_size, window, seed):
    sampler = sampler_of(length, block_size, window, seed)
    order = sampler.places(3)
    seen = []
    for number in range(order.num_windows):
        start, stop = order.borders(number)
        places = order(np.arange(start, stop))
        blocks = np.unique(places // block_size)
        assert len(blocks) == order.num_blocks_in(number) <= window
        whole = [np.arange(b * block_size, min((b + 1) * block_size, length)) for b in blocks]
        np.testing.assert_array_equal(np.sort(places), np.concatenate(whole))
        seen += blocks.tolist()
    assert len(seen) == len(set(seen)) == order.num_blocks


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 900), batch=st.integers(1, 50), **LAYOUTS)
def test_all_but_the_window_at_hand_was_asked_for_before_it_is_read(
    start, batch, length, block_size, window, seed
):
    sampler = sampler_of(length, block_size, window, seed)
    asked: set[int] = set()
    for step in range(8):
        first = start + step * batch
        asked |= set(sampler.ahead(first, batch, begins=step == 0).tolist())
        assert set(sampler.indices(np.arange(first, first + batch)).tolist()) <= asked


def test_a_batch_asks_for_little():
    sampler = sampler_of(10**9, 1024, 64, seed=1)
    first = 10**9 // 2
    counts = [len(sampler.ahead(first + 256 * k, 256)) for k in range(256)]
    assert max(counts) <= 1024
    assert sum(counts) == 64 * 1024


def test_records_are_found_through_their_place_in_the_storage():
    stored = np.random.default_rng(0).permutation(100)  # record at each place
    options = {"seed": 5, "block_size": 10, "window": 2}
    plain = BlockSampler(100, **options)
    through = BlockSampler(100, **options, from_storage=lambda places: stored[places])
    positions = np.arange(250)
    np.testing.assert_array_equal(through.indices(positions), stored[plain.indices(positions)])
    np.testing.assert_array_equal(through.ahead(7, 30), stored[plain.ahead(7, 30)])


def test_epochs_differ_in_blocks_and_within():
    sampler = sampler_of(1000, 10, 5, seed=2)
    one, two = sampler.indices(np.arange(1000)), sampler.indices(np.arange(1000, 2000))
    assert set(one[:50] // 10) != set(two[:50] // 10)
    assert np.abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.35
    whole = sampler_of(1000, 1000, 1, seed=2)  # one block: a full permutation
    assert abs(np.corrcoef(whole.indices(np.arange(1000)), np.arange(1000))[0, 1]) < 0.1

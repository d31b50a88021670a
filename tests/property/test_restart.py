"""A run that is taken up anywhere gets the batches that it would have had, bit for bit: with other
numbers of workers and ranks, other depths, in the middle of epochs, blocks, windows and sets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import Noise

from manyface.data import (
    Augmentation,
    BlockSampler,
    DualLoader,
    EpochSampler,
    Loader,
    Mixture,
    MixtureSampler,
    Shares,
)

SIZES = [11, 24]
STEPS = 4
ORDERS: dict[str, Callable[[int, int], Any]] = {
    "full": lambda block, window: EpochSampler,
    "block": lambda block, window: partial(BlockSampler, block_size=block, window=window),
    "mixture": lambda block, window: partial(
        MixtureSampler,
        sizes=SIZES,
        shares=Shares([3, 2]),
        orders=[EpochSampler, partial(BlockSampler, block_size=block, window=window)],
    ),
}
OPTIONS = Augmentation(flip=0.5, shift=1, brightness=0.2, erase=0.3)


def part_of(batch: Any, half: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Images and labels of a rank, of dual batches half by half."""
    parts = 2 if half else 1
    images = batch.images_on(torch.device("cpu"))
    return list(images.chunk(parts)), list(batch.labels.chunk(parts))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([Loader, DualLoader]),
    order=st.sampled_from(list(ORDERS)),
    block=st.integers(1, 9),
    window=st.integers(1, 4),
    half=st.integers(2, 9),
    seed=st.integers(0, 2**60),
    start=st.integers(0, 40),
    before=st.tuples(st.integers(1, 3), st.integers(0, 4)),
    after=st.tuples(st.integers(1, 3), st.integers(0, 4)),
    num_ranks=st.integers(1, 4),
    on_device=st.booleans(),
)
def test_restarts_are_exact(
    kind, order, block, window, half, seed, start, before, after, num_ranks, on_device
):
    num_ranks = min(num_ranks, half)  # each has images
    source = Mixture([Noise(size) for size in SIZES])
    options = {
        "batch_size": 2 * half, "seed": seed, "augmentation": OPTIONS,
        "order": ORDERS[order](block, window),
    }  # fmt: skip
    if kind is DualLoader:
        options["identity_share"] = 2 / (2 * half)
    workers, prefetch = before
    whole = kind(source, workers=workers, prefetch=prefetch, **options)
    expected = list(whole.batches(0, start + STEPS))[start:]
    workers, prefetch = after
    ranks = [
        kind(
            source, workers=workers, prefetch=prefetch, rank=rank, num_ranks=num_ranks,
            on_device=on_device, **options,
        ).batches(start, start + STEPS)
        for rank in range(num_ranks)
    ]  # fmt: skip
    for batch, *parts in zip(expected, *ranks, strict=True):
        images, labels = part_of(batch, kind is DualLoader)
        found = [part_of(part, kind is DualLoader) for part in parts]
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            assert torch.equal(torch.cat([each[0][number] for each in found]), image)
            assert torch.equal(torch.cat([each[1][number] for each in found]), label)
        assert all(part.num_images == batch.num_images for part in parts)


@pytest.mark.parametrize("order", ORDERS)
def test_any_rank_may_be_asked_for_any_position(order):
    sampler = ORDERS[order](4, 3)(sum(SIZES), seed=9)
    positions = np.random.default_rng(0).permutation(5 * sum(SIZES))
    found = sampler.indices(positions)
    in_order = sampler.indices(np.arange(5 * sum(SIZES)))
    assert np.array_equal(found, in_order[positions])

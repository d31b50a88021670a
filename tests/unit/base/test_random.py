"""Named streams: repeatable, independent, uniform."""

import numpy as np
import torch

from manyface.base.random import hash_uniform, numpy_generator, stream_seed, torch_generator


def test_streams_depend_on_every_part_of_their_name() -> None:
    seeds = {
        stream_seed(0, "a"),
        stream_seed(1, "a"),
        stream_seed(0, "b"),
        stream_seed(0, "a", 1),
        stream_seed(0, "a", "1"),
        stream_seed(0, "a1"),
    }
    assert len(seeds) == 6


def test_streams_are_frozen() -> None:
    """A change here changes every run: only with a new release and a line in the changelog."""
    assert stream_seed(0, "centers", 3) == 8039438274024027987
    assert hash_uniform(7, np.arange(3)).tolist() == [
        0.41231608390808105,
        0.9775827527046204,
        0.08029669523239136,
    ]


def test_generators_repeat() -> None:
    draws = [numpy_generator(3, "x").random(4) for _ in range(2)]
    assert np.array_equal(*draws)
    tensors = [torch.rand(4, generator=torch_generator(3, "x")) for _ in range(2)]
    assert torch.equal(*tensors)


def test_hash_is_uniform_and_lanes_are_independent() -> None:
    counters = np.arange(200_000)
    first, second = hash_uniform(1, counters, lane=0), hash_uniform(1, counters, lane=1)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() < 1
    assert abs(first.mean() - 0.5) < 0.004
    assert abs(first.std() - 12**-0.5) < 0.004
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.01


def test_hash_of_any_shape_is_the_hash_of_its_counters() -> None:
    grid = np.arange(12).reshape(3, 4)
    assert np.array_equal(hash_uniform(0, grid).ravel(), hash_uniform(0, grid.ravel()))
    assert hash_uniform(0, np.int64(5)) == hash_uniform(0, np.arange(6))[5]

"""Edges of the epoch sampler; its properties are in tests/property."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manyface.data import BlockSampler, EpochSampler


def test_an_epoch_may_end_inside_a_batch():
    sampler = EpochSampler(5, seed=1)
    batch = sampler.indices(np.arange(3, 8))
    np.testing.assert_array_equal(batch[:2], sampler.indices(np.array([3, 4])))
    np.testing.assert_array_equal(batch[2:], sampler.indices(np.array([5, 6, 7])))


def test_epochs_and_seeds_differ():
    first, second = EpochSampler(1000, seed=1), EpochSampler(1000, seed=2)
    epoch = np.arange(1000)
    assert not np.array_equal(first.indices(epoch), first.indices(epoch + 1000))
    assert not np.array_equal(first.indices(epoch), second.indices(epoch))


def test_a_hundred_million_records_take_no_memory():
    sampler = EpochSampler(100_000_007, seed=3)
    indices = sampler.indices(np.arange(10**12, 10**12 + 1000))
    assert indices.dtype == np.int64
    assert len(np.unique(indices)) == 1000
    assert 0.45 < indices.mean() / 100_000_007 < 0.55


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one record"):
        EpochSampler(0, seed=1)
    with pytest.raises(ValueError, match="positions must be >= 0, got -1"):
        EpochSampler(2, seed=1).indices(np.array([3, -1]))
    with pytest.raises(ValueError, match="expected block_size, window >= 1, got 0, 2"):
        BlockSampler(5, seed=1, block_size=0, window=2)


RELIABILITY = Path(__file__).parents[2] / "reliability"  # own_memory.py
MEMORY = """
import sys

import numpy as np
from manyface.data import BlockSampler, EpochSampler
from own_memory import peak_bytes

make = {"full": EpochSampler, "block": lambda n, seed: BlockSampler(
    n, seed=seed, block_size=1024, window=64)}[sys.argv[1]]
before = peak_bytes()
sampler = make(10**9, seed=1)
for k in range(200):
    first = k * 3 * 10**7
    found = sampler.indices(np.arange(first, first + 512))
    sampler.ahead(first, 512, begins=True)
    assert found.min() >= 0 and found.max() < 10**9
    sampler.indices(np.random.default_rng(k).integers(0, 5 * 10**9, 64))
print((peak_bytes() - before) / (1 << 20))
"""


@pytest.mark.parametrize("kind", ["full", "block"])
def test_a_billion_images_take_less_than_50_megabytes(kind):
    places = [str(RELIABILITY), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, kind],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    assert float(done.stdout) < 50

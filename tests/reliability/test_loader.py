"""R13: however many batches a loader makes, few are alive, and neither memory nor threads grow."""

import gc
import itertools
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from manyface.data import Augmentation, BlockSampler, DecodedImages, Loader, open_records
from manyface.data.loader import made_ahead
from manyface.observe.memory import resident_bytes


class Made:
    """Stands for a batch."""


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (1, 4), (3, 4)])
def test_no_more_batches_are_made_than_are_to_wait(workers: int, prefetch: int) -> None:
    alive: weakref.WeakSet[Made] = weakref.WeakSet()

    def make(step: int) -> Made:
        alive.add(made := Made())
        return made

    batches = made_ahead(make, itertools.count(), prefetch=prefetch, workers=workers)
    most = 0
    for batch, _ in zip(batches, range(60), strict=False):
        time.sleep(0.002)  # the threads have time to go too far
        most = max(most, len(alive))
        del batch
    batches.close()  # type: ignore[attr-defined]
    assert most <= prefetch + 1  # and the one at hand
    gc.collect()
    assert not alive


def faces(folder: Path, *, cache: int) -> DecodedImages:
    """Twelve JPEGs of 32 x 32 pixels, one of them broken."""
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        place = folder / f"person {number // 3}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(simplejpeg.encode_jpeg(pixels))
    place.write_bytes(b"broken")
    return DecodedImages(
        open_records(folder), image_size=24, threads=2, max_bad_share=0.2, cache=cache
    )


def growth(source: DecodedImages, count: int, *, on_device: bool) -> tuple[int, int]:
    """Bytes and threads that `count` batches add to those of the first ones."""
    loader = Loader(
        source,
        batch_size=6,
        seed=1,
        augmentation=Augmentation(shift=2, blur=0.2, erase=0.3),
        prefetch=3,
        workers=2,
        order=lambda length, seed: BlockSampler(length, seed=seed, block_size=2, window=3),
        on_device=on_device,
    )
    batches = loader.batches()
    for batch in itertools.islice(batches, count // 10):
        batch.images_on(torch.device("cpu"))
    before, threads = resident_bytes(), threading.active_count()
    for batch in itertools.islice(batches, count):
        batch.images_on(torch.device("cpu"))
    found = resident_bytes() - before, threading.active_count() - threads
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())
    return found


@pytest.mark.parametrize("on_device", [pytest.param(False, marks=pytest.mark.slow), True])
def test_thousands_of_batches_leave_nothing_behind(tmp_path: Path, on_device: bool) -> None:
    grown, threads = growth(faces(tmp_path, cache=0), 3000, on_device=on_device)
    assert threads <= 0  # those of an earlier test may end meanwhile
    assert grown < 16 << 20  # a batch of floats is 41 KB: one in eight kept would be seen


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_batches_leave_nothing_behind(tmp_path: Path) -> None:
    grown, threads = growth(faces(tmp_path, cache=0), 100_000, on_device=False)
    assert threads <= 0
    assert grown < 32 << 20

"""Prefetched batches: right content, errors that surface, threads that end."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from manyface.base.errors import DataError
from manyface.base.threads import use_one_core
from manyface.data import Augmentation, DecodedImages, Loader, open_records

PLAIN = Augmentation(flip=0)


class CountingSource:
    """Image i is filled with the value i; can be slow, or fail at a record."""

    def __init__(self, length=20, *, fail_at=None, error=DataError, seconds=0.0):
        self.name, self.image_size = "counting", 4
        self.length, self.fail_at, self.error, self.seconds = length, fail_at, error, seconds
        self.num_identities = min(length, 5)
        self.identity_names = [str(i) for i in range(self.num_identities)]
        self.torch_threads = set()
        self.loaded = 0

    def __len__(self):
        return self.length

    def labels(self, indices):
        return indices % self.num_identities

    def load(self, indices, out=None):
        self.torch_threads.add(torch.get_num_threads())
        time.sleep(self.seconds)
        if self.fail_at is not None and self.fail_at in indices:
            raise self.error(f"record {self.fail_at} is broken")
        values = torch.from_numpy(indices).to(torch.uint8)
        self.loaded += 1
        return values[:, None, None, None].expand(-1, 4, 4, 3).contiguous()


def loader_of(source, **options):
    defaults = {"batch_size": 6, "seed": 3, "augmentation": PLAIN}
    return Loader(source, **(defaults | options))


def records_of(batch) -> list[int]:
    return (batch.images[:, 0, 0, 0] * 127.5 + 127.5).round().long().tolist()


def eventually(is_so, seconds=10):
    limit = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < limit:
        time.sleep(0.01)
    return found


def num_loader_threads() -> int:
    return sum(thread.name.startswith("loader") for thread in threading.enumerate())


def test_batches_have_images_labels_and_place():
    batches = list(loader_of(CountingSource()).batches(0, 5))
    assert [batch.first_position for batch in batches] == [0, 6, 12, 18, 24]
    for batch in batches:
        assert batch.images.shape == (6, 3, 4, 4)
        assert batch.images.dtype == torch.float32
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [record % 5 for record in records_of(batch)]
    seen = [record for batch in batches for record in records_of(batch)]
    assert sorted(seen[:20]) == list(range(20))


def test_steps_per_epoch_and_endless_batches():
    loader = loader_of(CountingSource(), batch_size=8)
    assert loader.steps_per_epoch == 2.5
    assert len(list(itertools.islice(loader.batches(), 30))) == 30
    assert list(loader.batches(4, 4)) == []


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = loader_of(CountingSource(5), batch_size=13).batches(0, 1)
    assert sorted(records_of(batch)[:5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize("error", [DataError, OSError, KeyError])
def test_errors_surface_as_what_they_are_and_end_the_threads(prefetch, error):
    loader = loader_of(CountingSource(fail_at=7, error=error), prefetch=prefetch)
    with pytest.raises(error, match="record 7 is broken"):
        list(loader.batches(0, 4))
    assert num_loader_threads() == 0


def test_batches_before_the_broken_one_are_still_handed_out():
    source = CountingSource(fail_at=7)
    order = loader_of(source, prefetch=4)._sampler.indices(np.arange(24))
    broken_step = int(np.flatnonzero(order == 7)[0]) // 6
    batches = loader_of(source, prefetch=4).batches()
    assert len(list(itertools.islice(batches, broken_step))) == broken_step
    with pytest.raises(DataError):
        next(batches)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_the_loop_by_an_error_ends_the_threads(error):
    batches = loader_of(CountingSource(seconds=0.02), workers=2, prefetch=4).batches()

    def train():
        for _ in batches:
            assert num_loader_threads() > 0
            raise error

    with pytest.raises(error):
        train()
    batches.close()
    assert num_loader_threads() == 0


def test_breaking_out_and_collecting_ends_the_threads():
    for _ in loader_of(CountingSource()).batches():
        break
    assert num_loader_threads() == 0


def test_work_goes_on_while_the_consumer_is_busy():
    source = CountingSource()
    batches = loader_of(source, prefetch=3).batches(0, 9)
    next(batches)
    assert eventually(lambda: source.loaded == 4)  # the one taken, and three ahead of it
    time.sleep(0.05)
    assert source.loaded == 4
    next(batches)
    assert eventually(lambda: source.loaded == 5)
    batches.close()


def threads_of_a_new_thread():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


def test_background_threads_use_one_core_and_leave_the_others_alone(write_faces):
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        source = CountingSource()
        list(loader_of(source, workers=3, prefetch=6).batches(0, 12))
        assert source.torch_threads == {1}
        faces = DecodedImages(
            open_records(write_faces({"Ann": 9, "Bob": 9})), image_size=16, threads=3, cache=0
        )
        list(loader_of(faces, workers=2).batches(0, 4))
        assert torch.get_num_threads() == 3
        # A decoder's thread may begin as the last batch is given, and limits for a moment all.
        assert eventually(lambda: threads_of_a_new_thread() == 3)
    finally:
        torch.set_num_threads(usual)


def test_the_limit_is_for_the_thread_that_calls_it():
    counts: list[int] = []
    thread = threading.Thread(
        target=lambda: (use_one_core(), counts.append(torch.get_num_threads()))
    )
    thread.start()
    thread.join()
    assert counts == [1]


def test_a_set_that_cannot_train_is_refused(write_faces):
    one_person = DecodedImages(open_records(write_faces({"Ann": 3})), image_size=24)
    with pytest.raises(DataError, match=r"one person only \(3 images\); training needs at least 2"):
        loader_of(one_person)
    with pytest.raises(DataError, match="holds no image"):
        loader_of(CountingSource(0))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"prefetch": -1}, {"workers": 0}])
def test_impossible_arguments(options):
    with pytest.raises(ValueError, match="expected batch_size >= 1"):
        loader_of(CountingSource(), **options)
    with pytest.raises(ValueError, match="start_step must be >= 0"):
        loader_of(CountingSource()).batches(-1)


def test_one_image_per_person_trains(write_faces):
    root = write_faces({f"person {i}": 1 for i in range(5)})
    source = DecodedImages(open_records(root), image_size=24, threads=2)
    (batch,) = loader_of(source, batch_size=5).batches(0, 1)
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3, 4]

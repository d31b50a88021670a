"""Dual batches: pairs of identities beside ordinary images, a pure function of the step."""

import itertools

import numpy as np
import pytest
import torch

from manyface.base.errors import ConfigError, DataError
from manyface.data import Augmentation, DualLoader
from manyface.data.dual import DualSampler


class Grouped:
    """Identity i has counts[i] images; image k is filled with the value k."""

    def __init__(self, counts):
        self.name, self.image_size = "grouped", 4
        self.counts = np.array(counts)
        self.first = np.cumsum([0, *counts])
        self.num_identities = len(counts)
        self.identity_names = [f"person {i}" for i in range(len(counts))]

    def __len__(self):
        return int(self.first[-1])

    def labels(self, indices):
        return np.searchsorted(self.first, indices, side="right") - 1

    def images_of(self, identities):
        return self.first[identities], self.counts[identities]

    def load(self, indices, out=None):
        values = torch.from_numpy(indices).to(torch.uint8)
        return values[:, None, None, None].expand(-1, 4, 4, 3).contiguous()


LONG_TAIL = [1, 1, 1, 1, 2, 2, 3, 5, 9, 20]


def sampler_of(counts=LONG_TAIL, **options):
    defaults = {"batch_size": 8, "identity_share": 0.5, "seed": 0}
    return DualSampler(Grouped(counts), **(defaults | options))


def loader_of(**options):
    defaults = {"batch_size": 8, "seed": 3, "augmentation": Augmentation(flip=0.5)}
    return DualLoader(Grouped(LONG_TAIL), **(defaults | options))


class Planner:
    """Remembers the labels it was given."""

    def __init__(self):
        self.seen = []

    def plan(self, x_labels, y_labels):
        self.seen.append((x_labels.tolist(), y_labels.tolist()))
        return len(self.seen) - 1


@pytest.mark.parametrize(
    ("share", "batch_size", "pairs"), [(0.5, 8, 2), (2 / 3, 12, 4), (0, 6, 0), (1, 6, 3)]
)
def test_the_mix_is_as_stated(share, batch_size, pairs):
    sampler = sampler_of(batch_size=batch_size, identity_share=share)
    assert (sampler.num_pairs, sampler.num_singles) == (pairs, batch_size - 2 * pairs)
    source = Grouped(LONG_TAIL)
    for step in range(20):
        x, y = np.split(source.labels(sampler.indices(step)), 2)
        assert len(x) == len(y) == batch_size // 2
        assert x[:pairs].tolist() == y[:pairs].tolist()


def test_every_pass_shows_every_identity_once_and_in_another_order():
    sampler, source = sampler_of(batch_size=4, identity_share=1.0), Grouped(LONG_TAIL)
    passes = [
        np.concatenate([source.labels(sampler.indices(5 * k + step))[:2] for step in range(5)])
        for k in range(4)
    ]
    assert all(sorted(order.tolist()) == list(range(10)) for order in passes)
    assert len({tuple(order.tolist()) for order in passes}) == 4


def test_every_epoch_of_the_instance_part_shows_every_image_once():
    sampler = sampler_of(batch_size=12, identity_share=1 / 3)
    pairs, singles = sampler.num_pairs, sampler.num_singles
    shown: list[int] = []
    while len(shown) < 3 * 45:
        x, y = np.split(sampler.indices(len(shown) // singles), 2)
        shown += [*x[pairs:].tolist(), *y[pairs:].tolist()]
    for epoch in range(3):
        assert sorted(shown[45 * epoch : 45 * (epoch + 1)]) == list(range(45))


def test_pairs_are_two_images_and_the_only_image_twice():
    sampler, source = sampler_of(batch_size=2, identity_share=1.0), Grouped(LONG_TAIL)
    seen = {name: set() for name in range(10)}
    for step in range(3000):
        one, two = sampler.indices(step)
        name = int(source.labels(np.array([one]))[0])
        assert (one == two) == (source.counts[name] == 1)
        seen[name].add((int(one), int(two)))
    for name, count in enumerate(LONG_TAIL):
        wanted = count * (count - 1) if count > 1 else 1
        assert len(seen[name]) > 0.5 * wanted  # all ordered pairs can come, the few surely do
        if count <= 5:
            assert len(seen[name]) == wanted


def test_an_identity_with_one_image_is_augmented_twice():
    loader = DualLoader(
        Grouped([1, 1]),
        batch_size=4,
        seed=0,
        identity_share=1.0,
        augmentation=Augmentation(flip=0, brightness=0.5),
    )
    batch = loader.batch(0)
    assert not torch.equal(batch.images[:2], batch.images[2:])


@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_batches_and_plans_do_not_depend_on_how_far_ahead_they_are_made(prefetch):
    planner = Planner()
    loader = loader_of(make_planner=lambda: planner, prefetch=prefetch, workers=2)
    batches = list(itertools.islice(loader.batches(3), 6))
    for step, batch in enumerate(batches, start=3):
        alone = loader.batch(step)
        assert torch.equal(batch.images, alone.images)
        assert torch.equal(batch.labels, alone.labels)
        assert batch.first_position == 8 * step
        assert batch.plan == step - 3
        assert planner.seen[batch.plan] == tuple(half.tolist() for half in batch.labels.split(4))


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("wanted", [1, 3, 4, 7, 10, 99])
def test_a_pool_is_filled_with_those_that_come_last_the_last_one_first(wanted, prefetch):
    loader = loader_of(prefetch=prefetch, identity_share=1.0)
    batches = list(loader.prefill(wanted))
    found = torch.cat([batch.labels for batch in batches]).tolist()
    order = [label for step in range(3) for label in loader.labels(step)[:4].tolist()][:10]
    assert found == order[::-1][:wanted]  # 99: no more than there are
    sizes = [len(batch.images) for batch in batches]
    assert all(min(4, wanted) <= size < 8 for size in sizes)  # never a batch of one
    assert [batch.first_position for batch in batches] == np.cumsum([0, *sizes[:-1]]).tolist()
    for one, other in zip(batches, loader.prefill(wanted), strict=True):
        assert torch.equal(one.images, other.images)


def test_a_pool_is_filled_whatever_the_share_of_identities():
    first, second = (
        [batch.labels.tolist() for batch in loader_of(identity_share=share).prefill(6)]
        for share in (0.0, 1.0)
    )
    assert first == second


def test_without_a_planner_there_are_no_plans():
    assert [batch.plan for batch in loader_of().batches(0, 3)] == [None] * 3


def test_the_planner_is_made_with_the_first_batch():
    made = []
    batches = loader_of(make_planner=lambda: made.append(Planner()) or made[0]).batches(0, 2)
    assert not made
    assert [batch.plan for batch in batches] == [0, 1]
    assert len(made) == 1


def test_an_error_of_a_planner_surfaces():
    class Broken:
        def plan(self, x_labels, y_labels):
            raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        next(iter(loader_of(make_planner=Broken).batches()))


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"even number of images, got 7; set .* 6 or 8"):
        sampler_of(batch_size=7)
    with pytest.raises(ConfigError, match=r"got 1; set train.batch_size to 2 or 4"):
        sampler_of(batch_size=1)
    with pytest.raises(ConfigError, match=r"in \[0, 1\], got 1.5"):
        sampler_of(identity_share=1.5)
    words = r"identity_share is 0.1, .* batch of 8 images .* no pair; .* 0 or to 0.25 at least"
    with pytest.raises(ConfigError, match=words):
        sampler_of(identity_share=0.1)
    assert sampler_of(identity_share=0.25).num_pairs == 1
    with pytest.raises(DataError, match="'person 1' has no image"):
        DualLoader(
            Grouped([2, 0, 3]), batch_size=4, seed=0, augmentation=Augmentation(), prefetch=0
        )

"""The sample of a step: exact size, all positives, distinct, sorted, uniform, repeatable."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.heads.sampling import sample_classes, sample_size


@settings(max_examples=200, deadline=None)
@given(
    num_classes=st.integers(1, 400),
    rate=st.floats(0, 1),
    batch=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
def test_sample(num_classes: int, rate: float, batch: int, seed: int, step: int) -> None:
    draw = torch.Generator().manual_seed(seed % 2**31)
    labels = torch.randint(num_classes, (batch,), generator=draw)
    size = sample_size(num_classes, rate)

    def sample() -> torch.Tensor:
        return sample_classes(labels, num_classes=num_classes, size=size, seed=seed, step=step)

    ids = sample()
    assert ids.shape[0] == max(size, labels.unique().shape[0])
    assert bool((ids.diff() > 0).all()), "sorted and distinct"
    assert bool(torch.isin(labels, ids).all()), "every positive takes part"
    assert int(ids[0]) >= 0
    assert int(ids[-1]) < num_classes
    assert torch.equal(ids, sample())


def test_negatives_are_uniform_over_steps() -> None:
    labels = torch.tensor([3, 500])
    counts = torch.zeros(1000)
    for step in range(2000):
        counts[sample_classes(labels, num_classes=1000, size=100, seed=1, step=step)] += 1
    assert counts[3] == counts[500] == 2000
    negatives = counts[(counts != 2000)]
    expected = 2000 * 98 / 998
    deviation = (expected * (1 - 98 / 998)) ** 0.5
    assert float((negatives - expected).abs().max()) < 5 * deviation
    assert 0.85 < float(negatives.std() / deviation) < 1.15

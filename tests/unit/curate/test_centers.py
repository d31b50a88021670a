"""Alike class centers: exactly those of brute force, whatever blocks, sub-centers and order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError, NonFiniteError
from manyface.curate import centers
from manyface.curate.centers import find_alike_centers
from manyface.heads.row_order import RowOrder


def drawn(seed: int, num_classes: int, per_class: int = 1, dim: int = 16) -> torch.Tensor:
    """Rows of -1 and 1: cosines are whole sixteenths, exact, with many ties."""
    rng = np.random.default_rng(seed)
    signs = rng.choice([-1.0, 1.0], size=(num_classes * per_class, dim))
    return torch.from_numpy(signs.astype(np.float32)) * 3


def brute(rows: torch.Tensor, per_class: int, limit: float) -> dict[tuple[int, int], float]:
    unit = torch.nn.functional.normalize(rows, dim=1)
    size = len(rows) // per_class
    cosines = (unit @ unit.T).view(size, per_class, size, per_class).amax(dim=(1, 3))
    return {
        (i, j): float(cosines[i, j])
        for i in range(size)
        for j in range(i + 1, size)
        if cosines[i, j] >= limit
    }


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    num_classes=st.integers(2, 90),
    per_class=st.integers(1, 3),
    sizes=st.tuples(st.integers(3, 30), st.integers(3, 30), st.integers(3, 30)),
)
def test_all_pairs_above_the_limit(seed, num_classes, per_class, sizes):
    rows = drawn(seed, num_classes, per_class)
    expected = brute(rows, per_class, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("ROWS", "COLUMNS", "_HELD"), sizes, strict=True):
            patch.setattr(centers, name, size)
        found = find_alike_centers(
            lambda start, stop: rows[start * per_class : stop * per_class],
            num_classes,
            sub_centers=per_class,
            limit=0.5,
        )
    assert {tuple(pair) for pair in found.pairs.people.tolist()} == set(expected)
    for pair, cosine in zip(found.pairs.people.tolist(), found.pairs.cosines, strict=True):
        assert cosine == pytest.approx(expected[tuple(pair)], abs=1e-6)
    assert (np.diff(found.pairs.cosines) <= 0).all()


def test_the_most_alike_are_kept_and_the_cut_is_said():
    rows = drawn(0, 60)
    everything = sorted(brute(rows, 1, -1).values(), reverse=True)
    found = find_alike_centers(lambda start, stop: rows[start:stop], 60, limit=-1, most=25)
    assert found.is_cut
    np.testing.assert_allclose(found.pairs.cosines, everything[:25], atol=1e-6)
    assert not find_alike_centers(lambda start, stop: rows[start:stop], 60, limit=-1).is_cut


def test_the_limit_is_what_is_unusual_in_this_head():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(400, 64))
    rows[300] = rows[7] + 0.8 * rng.normal(size=64)
    found = find_alike_centers(lambda a, b: torch.from_numpy(rows[a:b]), 400)
    assert found.pairs.people.tolist() == [[7, 300]]
    assert 0.4 < found.limit < found.pairs.cosines[0]


def test_rows_are_asked_for_in_parts(monkeypatch):
    monkeypatch.setattr(centers, "_HELD", 32)
    monkeypatch.setattr(centers, "COLUMNS", 16)
    rows, asked, seen = drawn(2, 100), [], []

    def read(start, stop):
        asked.append(stop - start)
        return rows[start:stop].to(torch.bfloat16)

    find_alike_centers(
        read, 100, limit=0.9, progress=lambda done, total: seen.append((done, total))
    )
    assert max(asked) == 32
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (5050, 5050)


def test_what_cannot_be_compared_is_said():
    rows = drawn(0, 10)
    with pytest.raises(DataError, match="two classes or more, got 1"):
        find_alike_centers(lambda start, stop: rows[start:stop], 1)
    rows[7, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="center 7 of the head"):
        find_alike_centers(lambda start, stop: rows[start:stop], 10)


def test_the_class_of_a_row_is_found_back():
    for num_classes in (10, 20_000):
        order = RowOrder(num_classes, seed=3)
        classes = torch.arange(0, num_classes, 7)
        rows = order(classes).tolist()
        assert [order.class_of(row) for row in rows] == classes.tolist()

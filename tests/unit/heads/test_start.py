"""A new head starts from given centers: each class gets its own, wherever its row lies."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.centers import InFiles, InMemory, RowAdamW, RowSGD
from manyface.heads.row_order import SHUFFLED_FROM
from manyface.heads.start import start_from

DIM = 3


def head(num_classes: int, **options: object) -> mf.PartialFC:
    return mf.PartialFC(num_classes=num_classes, dim=DIM, margin=mf.CosFace(0.3), **options)


def table(num_classes: int) -> Tensor:
    return torch.randn(num_classes, DIM, generator=torch.Generator().manual_seed(1))


def read_of(centers: Tensor, asked: list[tuple[int, int]] | None = None):
    def read(start: int, stop: int) -> Tensor:
        if asked is not None:
            asked.append((start, stop))
        return centers[start:stop]

    return read


@pytest.mark.parametrize("num_classes", [1, 5, SHUFFLED_FROM - 1, SHUFFLED_FROM + 777])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_class_gets_its_center(num_classes: int, dtype: torch.dtype) -> None:
    centers, asked = table(num_classes), []
    made = head(num_classes, dtype=dtype)
    start_from(made, num_classes, read_of(centers, asked))
    assert torch.equal(made.class_centers(torch.arange(num_classes)), centers.to(dtype))
    assert asked[0][0] == 0
    assert asked[-1][1] == num_classes
    assert all(one[1] == other[0] for one, other in pairwise(asked))
    assert max(stop - start for start, stop in asked) <= 2**14
    assert not made.centers.velocity.any()


@pytest.mark.parametrize("optimizer", [RowSGD(mode="lazy-exact"), RowAdamW()])
def test_what_the_optimizer_keeps_is_that_of_a_new_head(optimizer: RowSGD | RowAdamW) -> None:
    made = head(7, optimizer=optimizer)
    start_from(made, 7, read_of(table(7)))
    assert not any(bool(values.any()) for values in made.centers.state_of_rows().values())


@pytest.mark.parametrize("place", ["host", "files"])
def test_rows_with_a_place_of_their_own(tmp_path: Path, place: str) -> None:
    where = InMemory("cpu") if place == "host" else InFiles(tmp_path / "rows")
    made = head(20, place=where)
    start_from(made, 20, read_of(table(20)))
    assert torch.equal(made.class_centers(torch.arange(20)), table(20))


def test_training_goes_on_from_there() -> None:
    made = mf.FullFC(num_classes=DIM, dim=DIM, margin=mf.CosFace(0.1))
    start_from(made, DIM, read_of(torch.eye(DIM)))
    loss = made(torch.eye(DIM).requires_grad_(), torch.arange(DIM))
    assert loss < 1e-6  # every embedding is its center
    loss.backward()
    made.step(0.1)


def test_another_number_of_classes_or_length() -> None:
    with pytest.raises(ConfigError, match=r"expected 9 class centers, one for each.*got 8"):
        start_from(head(9), 8, read_of(table(8)))
    with pytest.raises(ConfigError, match=r"length 3 as embeddings are, got 5; set backbone"):
        start_from(head(9), 9, read_of(torch.ones(9, 5)))
    with pytest.raises(ConfigError, match="one center per class, got 2 each"):
        start_from(head(9, sub_centers=2), 9, read_of(table(9)))

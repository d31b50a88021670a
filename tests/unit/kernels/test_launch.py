"""Triton's kernels are launched on the device of their tensors, not on torch's current one."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from languages import language_or_skip
from torch import Tensor

from manyface.kernels import Kernels


class Launches:
    """In place of a kernel: the tensors whose device was the current one at each launch."""

    def __init__(self) -> None:
        self.inside: list[Tensor] = []
        self.found: list[Tensor] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *_, **__: self.found.extend(self.inside)

    @contextmanager
    def device_of(self, tensor: Tensor) -> Iterator[None]:
        self.inside.append(tensor)
        yield
        self.inside.pop()


def numerators(kernels: Kernels, rows: Tensor) -> None:
    own = torch.zeros(3, dtype=torch.int64)
    kernels.numerators(torch.ones(3, 4), rows, torch.ones(len(rows), 1), own, None)


def update_rows(kernels: Kernels, rows: Tensor) -> None:
    ids, one = torch.arange(2), torch.ones(())
    constants = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    kernels.update_rows(rows, None, torch.ones(2, 4), ids, factor=one, noise=None, **constants)


@pytest.mark.parametrize(
    "call, name", [(numerators, "numerators_kernel"), (update_rows, "row_update_kernel")]
)
def test_on_the_device_of_the_rows(
    call: Callable[[Kernels, Tensor], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, launches, rows = language_or_skip("triton").kernels, Launches(), torch.ones(5, 4)
    module = sys.modules[getattr(kernels, call.__name__).__module__]
    monkeypatch.setattr(module, name, launches)
    monkeypatch.setattr(torch.cuda, "device_of", launches.device_of)
    call(kernels, rows)
    assert [each is rows for each in launches.found] == [True]

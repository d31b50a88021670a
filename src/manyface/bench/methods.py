"""The methods that `manyface bench head` compares; one more is one more line here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from manyface.base.errors import ConfigError
from manyface.bench.arcface_torch import (
    arcface_torch_needs,
    build_arcface_torch,
    build_arcface_torch_bf16,
    check_arcface_torch,
    no_checkout,
)
from manyface.bench.centers import (
    build_full,
    build_partial,
    build_partial_files,
    files_needs,
    full_needs,
    full_rows,
    no_files,
    partial_needs,
    partial_rows,
)
from manyface.bench.pool import PoolRun, check_pool, pool_needs, pool_rows
from manyface.bench.rivals import (
    RowSparseRun,
    build_eager,
    build_linear_cross_entropy,
    eager_needs,
    linear_cross_entropy_needs,
    no_linear_cross_entropy,
    row_sparse_needs,
)
from manyface.bench.shape import Needs, Run, Shape


def _nothing_to_check(shape: Shape) -> None:
    pass


def _nothing_missing(shape: Shape) -> None:
    return None


@dataclass(frozen=True)
class Method:
    """How a method is made and what it will take.

    Attributes:
        build: makes it, with every row and momentum written.
        needs: bytes, computed.
        active_rows: k, class centers or slots that a probe is scored against.
        plans: its `plan` does work and is reported.
        check: raises ConfigError where the shape is not for this method.
        missing: why it cannot run here, whatever the sizes; None if it can.
        rival: the others are set in relation to it.
        product_dtype: of its matrix products where that is not the shape's dtype.
    """

    build: Callable[[Shape], Run]
    needs: Callable[[Shape], Needs]
    active_rows: Callable[[Shape], int]
    plans: bool = False
    check: Callable[[Shape], None] = _nothing_to_check
    missing: Callable[[Shape], str | None] = _nothing_missing
    rival: bool = False
    product_dtype: str | None = None


METHODS: dict[str, Method] = {
    "full": Method(build_full, full_needs, full_rows),
    "partial": Method(build_partial, partial_needs, partial_rows),
    "full_bf16": Method(
        partial(build_full, dtype=torch.bfloat16),
        partial(full_needs, dtype=torch.bfloat16),
        full_rows,
        product_dtype="bfloat16",
    ),
    "partial_bf16": Method(
        partial(build_partial, dtype=torch.bfloat16),
        partial(partial_needs, dtype=torch.bfloat16),
        partial_rows,
        product_dtype="bfloat16",
    ),
    "partial_bf16_files": Method(
        build_partial_files,
        files_needs,
        partial_rows,
        missing=no_files,
        product_dtype="bfloat16",
    ),
    "f2c": Method(PoolRun, pool_needs, pool_rows, plans=True, check=check_pool),
    "eager": Method(build_eager, eager_needs, full_rows, rival=True),
    "linear_cross_entropy": Method(
        build_linear_cross_entropy,
        linear_cross_entropy_needs,
        full_rows,
        missing=no_linear_cross_entropy,
        rival=True,
    ),
    "partial_fc_2020": Method(RowSparseRun, row_sparse_needs, partial_rows, rival=True),
    "arcface_torch": Method(
        build_arcface_torch,
        arcface_torch_needs,
        partial_rows,
        check=check_arcface_torch,
        missing=no_checkout,
        rival=True,
    ),
    "arcface_torch_bf16": Method(
        build_arcface_torch_bf16,
        arcface_torch_needs,
        partial_rows,
        check=check_arcface_torch,
        missing=no_checkout,
        rival=True,
        product_dtype="bfloat16",
    ),
}


def find_method(name: str) -> Method:
    """The method of that name."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}")
    return METHODS[name]


def methods_here(shape: Shape) -> list[str]:
    """Names of all methods that nothing is missing for."""
    return [name for name, method in METHODS.items() if method.missing(shape) is None]


def check_method(name: str, shape: Shape) -> None:
    """Raises ConfigError where the method of that name cannot run, or not at this shape."""
    method = find_method(name)
    if (why := method.missing(shape)) is not None:
        raise ConfigError(why)
    method.check(shape)

"""The methods that `manyface bench head` compares; one more is one more line here."""

from collections.abc import Callable
from dataclasses import dataclass

from manyface.base.errors import ConfigError
from manyface.bench.centers import (
    EagerRun,
    build_full,
    build_partial,
    eager_needs,
    full_needs,
    full_rows,
    partial_needs,
    partial_rows,
)
from manyface.bench.pool import PoolRun, check_pool, pool_needs, pool_rows
from manyface.bench.shape import Needs, Run, Shape


def _nothing_to_check(shape: Shape) -> None:
    pass


@dataclass(frozen=True)
class Method:
    """How a method is made and what it will take.

    Attributes:
        build: makes it, with every row and momentum written.
        needs: bytes, computed.
        active_rows: k, class centers or slots that a probe is scored against.
        plans: its `plan` does work and is reported.
        check: raises ConfigError where the shape is not for this method.
    """

    build: Callable[[Shape], Run]
    needs: Callable[[Shape], Needs]
    active_rows: Callable[[Shape], int]
    plans: bool = False
    check: Callable[[Shape], None] = _nothing_to_check


METHODS: dict[str, Method] = {
    "full": Method(build_full, full_needs, full_rows),
    "partial": Method(build_partial, partial_needs, partial_rows),
    "f2c": Method(PoolRun, pool_needs, pool_rows, plans=True, check=check_pool),
    "eager": Method(EagerRun, eager_needs, full_rows),
}


def find_method(name: str) -> Method:
    """The method of that name."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; expected one of {', '.join(METHODS)}")
    return METHODS[name]

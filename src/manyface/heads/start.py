"""A new head that starts from class centers which something else has trained."""

from collections.abc import Callable

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.heads.base import CenterHead

_ROWS_AT_A_TIME = 2**14


def start_from(head: CenterHead, num_rows: int, read: Callable[[int, int], Tensor]) -> None:
    """Give `head`, which has made no step, the centers that `read` gives; momentum stays 0.

    Classes are walked in chunks, each center goes to its class's row wherever that lies, rounded to
    the nearest number of the table's dtype.

    Args:
        head: with one center per class.
        num_rows: classes that `read` knows.
        read: start, stop -> centers of classes [start, stop), float32 [stop - start, dim]. Of
            several ranks each reads all, and keeps its own.

    Raises:
        ConfigError: the number of classes or the length of centers differs, or sub_centers > 1.
    """
    if head.sub_centers > 1:
        raise ConfigError(f"expected a head of one center per class, got {head.sub_centers} each")
    if num_rows != head.num_classes:
        raise ConfigError(
            f"expected {head.num_classes} class centers, one for each identity, got {num_rows}; "
            "take the data that they were trained on, in the same order"
        )
    for start in range(0, num_rows, _ROWS_AT_A_TIME):
        classes = torch.arange(start, min(start + _ROWS_AT_A_TIME, num_rows))
        centers = read(start, start + len(classes))
        if centers.shape != (len(classes), head.dim):
            raise ConfigError(
                f"expected centers of length {head.dim} as embeddings are, got {centers.shape[1]}; "
                f"set backbone.embedding_size = {centers.shape[1]}"
            )
        rows = head.row_order(classes)
        here = head.shard.holds(rows)
        put_rows(head.centers.weight, rows[here] - head.shard.start, centers[here])


def put_rows(stored: Tensor, rows: Tensor, values: Tensor) -> None:
    """Write `values` [n, ...] into the rows `rows`, int64 [n], of a buffer of a center table."""
    stored.index_copy_(0, rows.to(stored.device), values.to(stored))

"""Copies of rows a step ahead: never stale, never missing."""

import numpy as np
import pytest
import torch
from torch import Tensor

from manyface.centers.read_ahead import RowBlocks
from manyface.centers.staging import Stage, Staging, ids_of

CPU = torch.device("cpu")


class Host:
    """Ten rows, and how many of them were fetched."""

    def __init__(self) -> None:
        self.rows = torch.arange(10.0)[:, None].repeat(1, 3)
        self.fetched = 0

    def fetch(self, name: str, ids: Tensor) -> Tensor:
        self.fetched += len(ids)
        return self.rows[ids]


def begun(host: Host, starts: list[int]) -> Staging:
    staging = Staging()
    blocks = RowBlocks(np.array(starts, np.int64), 2)
    staging.begin(lambda: blocks, ["weight"], 10, host.fetch, CPU)
    return staging


def test_rows_that_are_not_there_are_fetched() -> None:
    host = Host()
    stage = begun(host, [0, 4]).take(host.fetch)
    assert stage is not None
    before = host.fetched
    found = stage.read("weight", torch.tensor([4, 1, 9]), host.fetch)
    assert found[:, 0].tolist() == [4.0, 1.0, 9.0]
    assert host.fetched == before + 1


def test_rows_written_meanwhile_are_taken_again() -> None:
    host = Host()
    staging = begun(host, [0, 4])
    assert staging._coming is not None
    staging._coming.result()
    host.rows[torch.tensor([1, 8])] = -1.0
    staging.note(torch.tensor([1, 8]))
    stage = staging.take(host.fetch)
    assert stage is not None
    assert stage.tensors["weight"][:, 0].tolist() == [0.0, -1.0, 4.0, 5.0]


def test_what_is_written_is_read() -> None:
    stage = Stage(torch.tensor([2, 5]), {"weight": torch.zeros(2, 3)})
    stage.write("weight", torch.tensor([7, 5]), torch.ones(2, 3))
    assert stage.tensors["weight"][:, 0].tolist() == [0.0, 1.0]


def test_an_error_of_a_draw_is_raised_where_its_rows_are_wanted() -> None:
    host, staging = Host(), Staging()

    def wrong() -> RowBlocks:
        raise ValueError("no such rows")

    staging.begin(wrong, ["weight"], 10, host.fetch, CPU)
    with pytest.raises(ValueError, match="no such rows"):
        staging.take(host.fetch)
    assert staging.take(host.fetch) is None


def test_without_room_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyface.centers.staging.free_bytes", lambda device: 40)
    host = Host()
    assert begun(host, [0, 4]).take(host.fetch) is None


def test_blocks_to_rows() -> None:
    assert ids_of(RowBlocks(np.array([0, 1, 4]), 2), 5).tolist() == [0, 1, 2, 4]
    assert ids_of(RowBlocks(np.empty(0, np.int64), 2), 5).tolist() == []

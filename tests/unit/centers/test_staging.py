"""Copies of rows a step ahead: never stale, never missing."""

from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from manyface.centers import CenterTable, InMemory, RowSGD, staging
from manyface.centers.read_ahead import RowBlocks
from manyface.centers.staging import Stage, Staging, ids_of

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


class Host:
    """Ten rows, and how many of them were fetched."""

    def __init__(self) -> None:
        self.rows = torch.arange(10.0)[:, None].repeat(1, 3)
        self.fetched, self.largest = 0, 0

    def fetch(self, name: str, ids: Tensor) -> Tensor:
        self.fetched += len(ids)
        self.largest = max(self.largest, len(ids))
        return self.rows[ids]


def begun(host: Host, starts: list[int]) -> Staging:
    staging = Staging()
    blocks = RowBlocks(np.array(starts, np.int64), 2)
    staging.begin(lambda: blocks, ["weight"], 10, host.fetch, CPU)
    return staging


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """torch.cuda as it is called, for a `GPU` of endless memory that is not there."""
    cuda = Mock()
    cuda.stream.side_effect = nullcontext
    cuda.Stream.side_effect = lambda device: Mock(device=device)
    for name in ("stream", "Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    monkeypatch.setattr(staging, "free_bytes", lambda device: None)
    return cuda


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


def test_where_memory_has_run_out_meanwhile_there_is_none() -> None:
    host, staging = Host(), Staging()
    blocks = RowBlocks(np.array([0, 4]), 2)

    def fetch(name: str, ids: Tensor) -> Tensor:
        if len(ids) > 1:
            raise torch.OutOfMemoryError
        return host.fetch(name, ids)

    staging.begin(lambda: blocks, ["weight"], 10, fetch, CPU)
    assert staging.take(fetch) is None


def test_a_buffer_holds_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_ROWS_AT_A_TIME", 3)
    host = Host()
    stage = begun(host, [0, 4, 6, 8]).take(host.fetch)
    assert stage is not None
    assert torch.equal(stage.tensors["weight"], host.rows[stage.ids])
    assert host.largest == 3


def test_all_copies_are_of_one_stream(gpu: Mock) -> None:
    host, staging = Host(), Staging()
    blocks = RowBlocks(np.array([0, 4]), 2)
    for _ in range(3):
        staging.begin(lambda: blocks, ["weight"], 10, host.fetch, GPU)
        assert staging.take(host.fetch) is not None
        staging.turn()
    assert gpu.Stream.call_count == 1
    assert len({id(call.args[0]) for call in gpu.stream.call_args_list}) == 1


def test_memory_is_kept_for_the_stream_that_uses_it(
    gpu: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[object] = []
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: recorded.append(stream))
    stage, ids = Stage(torch.tensor([2, 5]), {"weight": torch.zeros(2, 3)}), torch.tensor([5])
    stage.read("weight", ids, Host().fetch)
    stage.write("weight", ids, torch.ones(1, 3))
    assert recorded == [gpu.current_stream()] * 2


def test_a_stage_is_given_rows_where_they_were_computed() -> None:
    """Not by way of the table, which is on `meta` here, for the memory of a host."""
    one = CenterTable(10, 3, seed=0, optimizer=RowSGD(), device="cpu", place=InMemory("meta"))
    rows = one.active(torch.arange(4))
    rows._stage = Mock()
    rows._store(0, 4, {"weight": torch.ones(4, 3)}, step=0, lane="update")
    assert rows._stage.write.call_args.args[2].device == CPU


def test_blocks_to_rows() -> None:
    assert ids_of(RowBlocks(np.array([0, 1, 4]), 2), 5).tolist() == [0, 1, 2, 4]
    assert ids_of(RowBlocks(np.empty(0, np.int64), 2), 5).tolist() == []

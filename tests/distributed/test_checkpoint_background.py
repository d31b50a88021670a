"""Checkpoints that several ranks write while they train."""

import errno
import os
import time
from pathlib import Path

import pytest
import torch
from processes import on_ranks, wait_for_file

from manyface.base.errors import CheckpointError, PeerError
from manyface.checkpoint import AsyncSaver, RowShard, committed, disk, load, own_ranks
from manyface.parallel import Ranks, Shard
from manyface.train.saving import Saver
from manyface.train.state import Position

NUM_ROWS, STEPS = 11, 40


class Table:
    """Rows whose values are the number of steps."""

    def __init__(self) -> None:
        ranks = Ranks()
        self.shard = Shard.of(NUM_ROWS, rank=ranks.rank, size=ranks.size)
        self.rows = torch.zeros(len(self.shard), 3)

    def state_dict(self):
        net = {"steps": torch.full((4,), float(self.rows.sum() / max(1, self.rows.numel())))}
        if len(self.shard) == 0:
            net = {"steps": torch.full((4,), -1.0)}
        return {"backbone": net, "head": {"rows": RowShard(self.rows, self.shard)}}


def slowly(write):
    def later(self, data):
        time.sleep(0.002)
        write(self, data)

    return later


def train(folder: Path, staging_bytes: int | None) -> list[bool]:
    """Collectives of training go on while the writer's ranks talk; rank 1 writes slowly."""
    ranks = Ranks()
    if ranks.rank == 1:
        disk.NewFile.write = slowly(disk.NewFile.write)
    table = Table()
    saver = Saver(folder, keep=100, every=4, staging_bytes=staging_bytes)
    background = []
    for step in range(1, STEPS + 1):
        table.rows += ranks.sum_(torch.ones(1), "gradients") / ranks.size
        if not saver.is_writing:
            saver.wait()
        if saver.due(step, last=STEPS):
            saver.save(table, Position(step=step))
            background.append(saver.pause.in_background)
    saver.wait()
    assert saver.last == folder / f"step-{STEPS:08d}"
    return background


@pytest.mark.parametrize("staging_bytes", [None, 0])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_training_and_writing_do_not_disturb_each_other(
    tmp_path: Path, size: int, staging_bytes: int | None
) -> None:
    found = on_ranks(train, size, tmp_path, staging_bytes)
    assert found == [[staging_bytes is None] * (STEPS // 4)] * size
    paths = committed(tmp_path)
    assert len(paths) == STEPS // 4
    for path in paths:
        checkpoint = load(path)
        rows = checkpoint.group("head")["rows"]
        whole = rows if size == 1 else rows.rows(0, NUM_ROWS)
        assert torch.equal(whole, torch.full((NUM_ROWS, 3), float(checkpoint.step)))


def group_that_rank_1_does_not_join(done: Path) -> str:
    if Ranks().rank == 1:
        wait_for_file(done, 20)
        return "absent"
    try:
        own_ranks(1.0)
    except PeerError as error:
        return str(error)
    finally:
        done.touch()
    return "nothing was noticed"


def test_a_rank_that_does_not_come_to_the_group_of_checkpoints_is_noticed(tmp_path: Path) -> None:
    text, _ = on_ranks(group_that_rank_1_does_not_join, 2, tmp_path / "done")
    assert "rank 0 of 2 could not finish 'a group beside training'" in text


def unequal(folder: Path) -> bool:
    budget = 10 if Ranks().rank == 1 else 1 << 20
    saver = AsyncSaver(folder, staging_bytes=budget)
    pause = saver.save(step=1, tensors={"net": {"a": torch.ones(99)}}, state={})
    assert saver.wait() is not None
    return pause.in_background


def test_one_rank_without_memory_makes_all_write_at_once(tmp_path: Path) -> None:
    assert on_ranks(unequal, 3, tmp_path) == [False] * 3


def failing(folder: Path) -> str:
    ranks, table = Ranks(), Table()
    saver = Saver(folder, staging_bytes=None)
    saver.save(table, Position(step=1))
    saver.wait()
    fsync = os.fsync

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if ranks.rank == 1:
        os.fsync = fail
    saver.save(table, Position(step=2))
    with pytest.raises(CheckpointError) as caught:
        saver.wait()
    os.fsync = fsync
    saver.save(table, Position(step=3))
    saver.wait()
    assert saver.last == folder / "step-00000003"
    return str(caught.value)


def test_a_write_that_fails_on_one_rank_is_told_to_all_and_the_run_goes_on(tmp_path: Path) -> None:
    found = on_ranks(failing, 3, tmp_path)
    assert len(set(found)) == 1
    assert "rank 1 of 3" in found[0]
    assert "head-1-of-3.safetensors: Input/output error (EIO, errno 5)" in found[0]
    assert [path.name for path in committed(tmp_path)] == ["step-00000001", "step-00000003"]

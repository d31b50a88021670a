import errno
import os
import threading

import pytest
import torch

from manyface.base.errors import CheckpointError
from manyface.checkpoint import AsyncSaver, RowShard, disk, load, newest
from manyface.checkpoint.staging import Staging, bytes_to_stage
from manyface.parallel import Shard


def state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "net": {
            "weight": torch.full((5, 3), value),
            "half": torch.full((7,), value).bfloat16(),
            "channels_last": torch.full((2, 3, 4, 4), value).to(memory_format=torch.channels_last),
            "transposed": torch.arange(6.0).view(2, 3).t() * value,
            "count": torch.tensor(int(value)),
            "empty": torch.zeros(0, 4),
        },
        "none": {},
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for group, members in expected.items():
        assert found[group].keys() == members.keys()
        for name, tensor in members.items():
            assert found[group][name].dtype == tensor.dtype
            assert torch.equal(found[group][name], tensor), name


@pytest.fixture
def held(monkeypatch):
    """Writes wait until this is set."""
    go = threading.Event()
    write = disk.NewFile.write

    def wait(self, data):
        assert go.wait(30)
        write(self, data)

    monkeypatch.setattr(disk.NewFile, "write", wait)
    return go


def overwrite(tensors):
    for members in tensors.values():
        for tensor in members.values():
            tensor.zero_()


def test_what_is_saved_is_the_state_of_that_moment(tmp_path, held):
    saver, tensors = AsyncSaver(tmp_path, staging_bytes=1 << 20), state(3.0)
    done = []
    pause = saver.save(step=3, tensors=tensors, state={"a": 1}, after=done.append)
    assert pause.in_background
    assert saver.is_writing
    assert newest(tmp_path) is None
    overwrite(tensors)
    held.set()
    path = saver.wait()
    assert path == newest(tmp_path)
    assert done == [path]
    assert_equal(load(path).tensors, state(3.0))
    assert saver.wait() is None


def test_a_second_save_waits_for_the_first_and_reuses_its_memory(tmp_path):
    saver = AsyncSaver(tmp_path, staging_bytes=1 << 20)
    saver.reserve(state(0.0))
    memory = saver._staging._memory.data_ptr()
    for step in (1, 2, 3):
        saver.save(step=step, tensors=state(float(step)), state={})
    saver.wait()
    assert saver._staging._memory.data_ptr() == memory
    for step in (1, 2, 3):
        path = tmp_path / f"step-0000000{step}"
        assert_equal(load(path).tensors, state(float(step)))


@pytest.mark.parametrize("budget", [0, 100])
def test_a_state_above_the_budget_is_written_at_once(tmp_path, budget):
    saver = AsyncSaver(tmp_path, staging_bytes=budget)
    pause = saver.save(step=1, tensors=state(1.0), state={})
    assert not pause.in_background
    assert pause.seconds > 0
    assert saver.wait() == newest(tmp_path)
    assert saver._staging.num_bytes == 0


def test_a_failed_write_is_raised_at_the_next_wait_and_the_run_can_go_on(tmp_path, monkeypatch):
    saver = AsyncSaver(tmp_path, staging_bytes=1 << 20)
    saver.save(step=1, tensors=state(1.0), state={})
    saver.wait()

    def fail(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(disk.NewFile, "sync", fail)
        saver.save(step=2, tensors=state(2.0), state={})
        saver._thread.join()
        with pytest.raises(CheckpointError, match="errno 28"):
            saver.wait()
    assert saver.wait() is None  # it is said once
    saver.save(step=3, tensors=state(3.0), state={})
    assert saver.wait() == newest(tmp_path) == tmp_path / "step-00000003"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_an_error_of_what_comes_after_is_raised_too(tmp_path):
    def after(path):
        raise CheckpointError("no retention")

    saver = AsyncSaver(tmp_path, staging_bytes=1 << 20)
    saver.save(step=1, tensors=state(1.0), state={}, after=after)
    with pytest.raises(CheckpointError, match="no retention"):
        saver.wait()
    assert saver.wait() == tmp_path / "step-00000001"


def test_staging_takes_what_it_says_and_keeps_shards():
    shard = Shard(2, 4, 9)
    tensors = {**state(2.0), "head": {"rows": RowShard(torch.rand(2, 5), shard)}}
    staging = Staging()
    copy = staging.copy(tensors)
    wanted = bytes_to_stage(tensors)
    assert staging.num_bytes == wanted
    rows = copy["head"].pop("rows")
    assert rows.shard == shard
    assert torch.equal(rows.values, tensors["head"].pop("rows").values)
    assert_equal(copy, tensors)
    staging.copy(state(1.0))  # a smaller one
    assert staging.num_bytes == wanted


def test_big_tensors_are_copied_in_pieces(monkeypatch):
    monkeypatch.setattr("manyface.checkpoint.staging._PIECE_BYTES", 64)
    tensors = {"a": {"x": torch.rand(37, 3), "y": torch.rand(1, 100), "z": torch.rand(100)}}
    assert_equal(Staging().copy(tensors), tensors)

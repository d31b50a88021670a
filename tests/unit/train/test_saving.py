import errno
import os

import pytest
import torch

from manyface.base.errors import CheckpointError, NonFiniteError
from manyface.checkpoint import disk, read_pointer
from manyface.train.saving import Saver
from manyface.train.state import Position


class Net:
    def state_dict(self):
        return {"net": {"weight": torch.ones(2)}}


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_due_by_steps_and_always_once_at_the_end(tmp_path):
    saver = Saver(tmp_path, every=3)
    assert [step for step in range(8) if saver.due(step, last=7)] == [3, 6, 7]
    saver.save(Net(), Position(step=3))
    assert not saver.due(3, last=7)


def test_due_by_time(tmp_path):
    now = [0.0]
    saver = Saver(tmp_path, every_seconds=60, clock=lambda: now[0])
    assert not saver.due(1, last=9)
    now[0] = 61.0
    assert saver.due(2, last=9)
    saver.save(Net(), Position(step=2))
    assert not saver.due(3, last=9)


def test_the_newest_few_and_the_best_stay(tmp_path):
    said = []
    saver = Saver(tmp_path, keep=2, on_save=said.append)
    for step in range(1, 6):
        saver.save(Net(), Position(step=step, best_score=0.5), best=step == 2)
    assert names(tmp_path) == [
        "best.json",
        "last.json",
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]
    assert read_pointer(tmp_path, "best").name == "step-00000002"
    assert read_pointer(tmp_path, "last").name == "step-00000005"
    assert [path.name for path in said] == [f"step-0000000{k}" for k in range(1, 6)]


def test_a_step_that_is_saved_already_only_gets_its_pointer(tmp_path):
    first = Saver(tmp_path)
    first.save(Net(), Position(step=4))
    again = Saver(tmp_path, last=first.last)
    again.save(Net(), Position(step=4, best_score=0.9), best=True)
    assert read_pointer(tmp_path, "best") == first.last


@pytest.mark.parametrize("saved", [True, False])
def test_the_explanation_names_step_and_checkpoint(tmp_path, saved):
    saver = Saver(tmp_path)
    if saved:
        saver.save(Net(), Position(step=4))
    text = str(saver.explain(NonFiniteError("the loss is not finite"), step=5))
    assert "stopped at step 6: the loss is not finite" in text
    assert ("step-00000004" in text) == saved


def test_in_the_background_every_checkpoint_is_told_of_once(tmp_path):
    said = []
    saver = Saver(tmp_path, keep=2, on_save=said.append, staging_bytes=None)
    saver.reserve(Net())
    for step in range(1, 6):
        saver.save(Net(), Position(step=step, best_score=0.5), best=step == 2)
        assert saver.pause.in_background
    saver.wait()
    assert [path.name for path in said] == [f"step-0000000{k}" for k in range(1, 6)]
    assert saver.last == said[-1]
    assert read_pointer(tmp_path, "best").name == "step-00000002"
    assert names(tmp_path) == [
        "best.json",
        "last.json",
        "step-00000002",
        "step-00000004",
        "step-00000005",
    ]


def test_a_step_whose_write_failed_can_be_saved_again(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    saver = Saver(tmp_path, staging_bytes=None)
    saver.save(Net(), Position(step=1))
    saver.wait()
    with monkeypatch.context() as patch:
        patch.setattr(disk.NewFile, "sync", fail)
        saver.save(Net(), Position(step=2))
        assert not saver.due(2, last=2)
        with pytest.raises(CheckpointError, match="errno 5"):
            saver.wait()
    assert saver.last == tmp_path / "step-00000001"
    assert saver.due(2, last=2)
    saver.save(Net(), Position(step=2))
    saver.wait()
    assert saver.last == tmp_path / "step-00000002"


def test_ranks_may_agree_on_what_the_clock_says(tmp_path):
    saver = Saver(tmp_path, every_seconds=60, clock=lambda: 0.0)
    assert not saver.is_late
    assert saver.due(1, last=9, late=True)

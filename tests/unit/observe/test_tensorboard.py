import sys

import pytest

from manyface.base.errors import MissingExtraError, WriteError
from manyface.observe.tensorboard import TensorBoardLog, scalars_of

STEP = {"kind": "step", "step": 3, "loss": 2.5, "learning_rate": 0.1, "grad_norm": None}
EVALUATION = {
    "kind": "evaluation",
    "step": 3,
    "set": "lfw",
    "scores": [{"name": "accuracy", "value": 0.9}],
}


def test_scalars_of_events():
    assert scalars_of(STEP) == {"train/loss": 2.5, "train/learning_rate": 0.1}
    assert scalars_of(EVALUATION) == {"lfw/accuracy": 0.9}
    assert scalars_of({"kind": "start", "step": 0}) == {}


def test_writes_an_event_file(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    log = TensorBoardLog(tmp_path)
    log.write(STEP)
    log.close()
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    class Full:
        def __init__(self, directory, purge_step):
            pass

        def add_scalar(self, *_):
            raise OSError(28, "No space left on device")

        close = add_scalar

    monkeypatch.setattr("manyface.observe.tensorboard._summary_writer", lambda: Full)
    log = TensorBoardLog(tmp_path)
    for action in (lambda: log.write(STEP), log.close):
        with pytest.raises(WriteError, match=rf"cannot write {tmp_path}: No space .*errno 28"):
            action()


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r".\[tensorboard\]"):
        TensorBoardLog(tmp_path)

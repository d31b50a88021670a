"""A full disk, errors of the system and a loss of power, at every call of a save."""

import errno
import itertools
import json
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from manyface.base.errors import CheckpointError
from manyface.checkpoint import RowShard, load, newest, read_pointer, retain, save, write_pointer
from manyface.parallel import Ranks, Shard

sys.path.insert(0, str(Path(__file__).parent))
from system_calls import Call, Disk, Recorder

SIZE = 3


class RanksOfThreads(Ranks):
    """Ranks that are threads of this process and take turns, so that calls come in one order."""

    def __init__(self, rank: int, texts: list[str], barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.size = rank, len(texts)
        self._texts, self._barrier = texts, barrier

    def say(self, text: str, name: str) -> list[str]:
        self._texts[self.rank] = text
        self._barrier.wait(30)
        said = list(self._texts)
        self._barrier.wait(30)
        return said


def on_threads(function: Callable[[Ranks], object]) -> list[object]:
    """`function` on each of three ranks; the error of the first that has one."""
    texts, barrier = [""] * SIZE, threading.Barrier(SIZE)
    with ThreadPoolExecutor(SIZE) as pool:
        ranks = [RanksOfThreads(rank, texts, barrier) for rank in range(SIZE)]
        done = [pool.submit(function, each) for each in ranks]
    errors = [each.exception() for each in done]
    assert len({str(error) for error in errors}) == 1  # all or none, with the same words
    if errors[0] is not None:
        raise errors[0]
    return [each.result() for each in done]


def save_step(folder: Path, step: int) -> None:
    """As a run does: the checkpoint, the pointer to it, retention of one."""

    def one(ranks: Ranks) -> None:
        shard = Shard.of(7, rank=ranks.rank, size=ranks.size)
        rows = torch.arange(7.0)[shard.start : shard.stop, None] + step
        net = {name: torch.full((3,), float(step)) for name in "abcdefuvw"}
        groups = {"net": net, "optimizer": net, "head": {"c": RowShard(rows, shard)}}
        save(folder, step=step, tensors=groups, state={"step": step}, ranks=ranks)

    on_threads(one)
    path = newest(folder)
    write_pointer(folder, "last", path, step=step)
    retain(folder, keep=1)


def step_found(folder: Path) -> int:
    """The step of the newest checkpoint, all of which is what was saved; no other is damaged."""
    path = newest(folder)
    assert path is not None
    checkpoint = load(path)
    step = checkpoint.step
    assert checkpoint.state == {"step": step}
    assert torch.equal(checkpoint.tensors["net"]["w"], torch.full((3,), float(step)))
    assert torch.equal(checkpoint.tables["head"]["c"].rows(0, 7), torch.arange(7.0)[:, None] + step)
    pointer = read_pointer(folder, "last")
    assert pointer is None or json.loads((folder / "last.json").read_text())["step"] <= step
    return step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    save_step(folder, 1)
    return folder


def record(folder: Path) -> list[Call]:
    recorder = Recorder()
    with recorder.installed(folder):
        save_step(folder, 2)
    assert step_found(folder) == 2
    return recorder.calls


def replay(before: Path, calls: list[Call], place: Path, original: Path) -> dict[str, int]:
    """Cut the power after each of `calls`; how often the old and the new checkpoint were found."""
    found = {"old": 0, "new": 0, "none": 0}
    disk = Disk(before)
    for number in range(len(calls) + 1):
        for how in ("lost", "names", "half"):
            if place.exists():
                shutil.rmtree(place)
            disk.write_to(place, how)
            try:
                found[{1: "old", 2: "new"}[step_found(place)]] += 1
            except (CheckpointError, AssertionError):
                found["none"] += 1
        if number < len(calls):
            call = calls[number]
            moved = (
                each.replace(str(original), str(before), 1) if each else each
                for each in (call.path, call.to)
            )
            disk.apply(Call(call.kind, *moved, data=call.data))
    return found


def test_power_lost_after_any_call_leaves_the_old_or_the_new_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    calls = record(folder)
    found = replay(before, calls, tmp_path / "after", folder)
    assert len(calls) > 50
    assert found["none"] == 0
    assert found["old"] > 100
    assert found["new"] > 3


@pytest.mark.parametrize("left_out", ["head-1-of-3.safetensors", "MANIFEST.json", ".tmp-2-"])
def test_the_replay_notices_what_is_not_forced_to_the_disk(
    folder: Path, tmp_path: Path, left_out: str
) -> None:
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    calls = [
        call
        for call in record(folder)
        if call.kind != "fsync" or not Path(call.path).name.startswith(left_out)
    ]
    assert replay(before, calls, tmp_path / "after", folder)["none"] > 0


def error_of_save(folder: Path, recorder: Recorder) -> str | None:
    try:
        with recorder.installed(folder):
            save_step(folder, 2)
    except CheckpointError as error:
        return str(error)
    return None


NUMBERS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


def test_an_error_at_any_call_names_path_and_errno_and_the_run_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    """Every call of a save up to its commit and in retention fails once, on whichever rank."""
    count = len(record(folder))
    refused = 0
    for fail_at, number in zip(range(count), itertools.cycle(NUMBERS), strict=False):
        shutil.rmtree(folder)
        save_step(folder, 1)
        recorder = Recorder(fail_at, number)
        if (said := error_of_save(folder, recorder)) is not None:
            refused += 1
            assert f"{errno.errorcode[number]}, errno {number}" in said
            assert str(folder) in said
        assert len(recorder.calls) > fail_at
        failed = recorder.calls[fail_at]
        names = {path.name for path in folder.iterdir() if path.name.startswith("step-")}
        assert names <= {"step-00000001", "step-00000002"}, failed
        assert step_found(folder) in (1, 2)
        save_step(folder, 3)
        assert step_found(folder) == 3
    assert refused >= 50

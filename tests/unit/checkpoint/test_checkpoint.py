import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from manyface.base.errors import CheckpointError, WriteError
from manyface.checkpoint import (
    load,
    newest,
    read_pointer,
    retain,
    run_lock,
    save,
    set_aside,
    sweep,
    write_pointer,
)


def groups(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return {
        "backbone": {
            "conv.weight": torch.randn(3, 5, 7, generator=g),
            "half": torch.randn(9, generator=g).bfloat16(),
            "count": torch.tensor(41),
            "empty": torch.zeros(0, 4),
            "channels_last": torch.randn(2, 3, 4, 4, generator=g).to(
                memory_format=torch.channels_last
            ),
            "double": torch.randn(3, generator=g, dtype=torch.float64),
            "mask": torch.tensor([True, False, True]),
        },
        "head": {"centers": torch.randn(11, 4, generator=g)},
    }


def save_step(directory: Path, step: int) -> Path:
    return save(directory, step=step, tensors=groups(step), state={"loss": 0.1 + 0.2})


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for group, members in expected.items():
        assert found[group].keys() == members.keys()
        for name, tensor in members.items():
            assert found[group][name].dtype == tensor.dtype
            assert torch.equal(found[group][name], tensor), name


def test_what_was_saved_is_what_is_loaded(tmp_path):
    path = save_step(tmp_path, 1200)
    assert path.name == "step-00001200"
    checkpoint = load(path)
    assert checkpoint.step == 1200
    assert checkpoint.state == {"loss": 0.1 + 0.2}
    assert_same(checkpoint.tensors, groups(1200))


def test_groups_can_be_left_out(tmp_path):
    assert load(save_step(tmp_path, 1), groups=("head", "no such")).tensors.keys() == {"head"}


def test_newest_ignores_everything_uncommitted(tmp_path):
    assert newest(tmp_path / "absent") is None
    good = save_step(tmp_path, 3)
    for name in (".tmp-9-abc", ".del-step-00000009", "damaged-step-00000009-0", "step-9", "notes"):
        shutil.copytree(good, tmp_path / name)
    (tmp_path / "step-00000010").write_text("a file, no directory")
    assert newest(tmp_path) == good
    sweep(tmp_path)
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "damaged-step-00000009-0").is_dir()


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "state.json", "backbone.safetensors", "head.safetensors"]
)
def test_any_flipped_bit_is_refused_and_the_file_named(tmp_path, name):
    path = save_step(tmp_path, 5)
    good = (path / name).read_bytes()
    for position in range(0, len(good), max(1, len(good) // 60)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        (path / name).write_bytes(bad)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        # A flip inside the manifest may rename a file, which then is what is missing or extra.
        assert name in str(caught.value) or name == "MANIFEST.json"
    (path / name).write_bytes(good)
    load(path)


def test_cut_missing_extra_and_foreign_files_are_refused(tmp_path):
    path, other = save_step(tmp_path, 5), save_step(tmp_path, 6)
    head = path / "head.safetensors"
    good = head.read_bytes()
    head.write_bytes(good[:-1])
    with pytest.raises(CheckpointError, match=r"head\.safetensors is damaged: expected"):
        load(path)
    shutil.copy(other / head.name, head)
    with pytest.raises(CheckpointError, match=r"head\.safetensors is damaged: expected xxh3"):
        load(path)
    head.unlink()
    with pytest.raises(CheckpointError, match=r"head\.safetensors is missing"):
        load(path)
    head.write_bytes(good)
    (path / "stray").write_text("")
    with pytest.raises(CheckpointError, match="stray is not in the manifest"):
        load(path)


def test_a_renamed_checkpoint_and_a_hostile_manifest_are_refused(tmp_path):
    path = save_step(tmp_path, 5)
    renamed = path.rename(tmp_path / "step-00000007")
    with pytest.raises(CheckpointError, match="is of step 5"):
        load(renamed)
    (renamed / "MANIFEST.json").write_text(
        json.dumps(
            {
                "format": "manyface-checkpoint",
                "version": 1,
                "step": 7,
                "files": {"../../secret": {"bytes": 1, "xxh3": ""}},
            }
        )
    )
    with pytest.raises(CheckpointError, match="is damaged"):
        load(renamed)


def test_another_version_is_named(tmp_path):
    path = save_step(tmp_path, 5)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    (path / "MANIFEST.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(CheckpointError, match="version 99"):
        load(path)
    with pytest.raises(CheckpointError, match="no such directory"):
        load(tmp_path / "nothing")


def test_disk_full_names_path_and_errno_and_leaves_the_earlier_one(tmp_path, monkeypatch):
    good = save_step(tmp_path, 1)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(CheckpointError, match=r"step-00000002.*ENOSPC, errno 28.*step-00000001"):
        save_step(tmp_path, 2)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]
    assert_same(load(good).tensors, groups(1))
    save_step(tmp_path, 2)


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_too_little_space_is_found_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 0, 100))
    with pytest.raises(CheckpointError, match=r"bytes to write, 100 free.*ENOSPC"):
        save_step(tmp_path, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_really_full_file_system(tmp_path, monkeypatch):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    try:
        tensors = {"head": {"centers": torch.ones(100_000)}}
        good = save(place, step=1, tensors=tensors, state={})
        left = shutil.disk_usage(place).free
        # Pretend that the free-space check was passed and the space went away afterwards.
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9**9, 0, 9**9)
        )
        for free in range(0, 400_000, 8_000):  # 50 points of the save
            (place / "other").write_bytes(b"\0" * (left - free))
            with pytest.raises(CheckpointError, match="ENOSPC"):
                save(place, step=2, tensors=tensors, state={})
            assert newest(place) == good
            load(good)
            assert not list(place.glob(".tmp-*"))
        (place / "other").unlink()
        assert save(place, step=2, tensors=tensors, state={}) == newest(place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_saving_a_step_twice_is_refused(tmp_path):
    save_step(tmp_path, 1)
    with pytest.raises(CheckpointError, match="EEXIST"):
        save_step(tmp_path, 1)


def test_pointers(tmp_path):
    assert read_pointer(tmp_path, "best") is None
    path = save_step(tmp_path, 4)
    write_pointer(tmp_path, "best", path, step=4, score=0.9)
    assert read_pointer(tmp_path, "best") == path
    for bad in ('{"checkpoint": "../../etc"}', '{"checkpoint": 3}', "{}", "x"):
        (tmp_path / "best.json").write_text(bad)
        with pytest.raises(CheckpointError, match="best"):
            read_pointer(tmp_path, "best")


def test_retention_keeps_the_newest_and_the_best(tmp_path):
    paths = [save_step(tmp_path, step) for step in range(1, 7)]
    assert retain(tmp_path, keep=2, protect=[paths[1]]) == [paths[0], paths[2], paths[3]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000005",
        "step-00000006",
    ]
    retain(tmp_path, keep=1)
    assert newest(tmp_path) == paths[5]
    load(paths[5])
    with pytest.raises(ValueError, match="newest"):
        retain(tmp_path, keep=0)


def test_a_damaged_checkpoint_is_put_aside_not_deleted(tmp_path):
    for number in range(2):
        aside = set_aside(save_step(tmp_path, 4))
        assert aside.name == f"damaged-step-00000004-{number}"
        assert newest(tmp_path) is None


def test_a_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    with (
        run_lock(tmp_path),
        pytest.raises(CheckpointError, match=f"in use by another process.*{os.getpid()}"),
        run_lock(tmp_path),
    ):
        pass
    with run_lock(tmp_path):
        pass


def test_a_file_system_without_locks_is_no_reason_not_to_train(tmp_path, monkeypatch):
    def unknown(descriptor, how):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with run_lock(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_names_its_file(tmp_path, monkeypatch):
    def full(descriptor, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WriteError, match=r"run\.lock: No space .*errno 28"), run_lock(tmp_path):
        pass
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/run/run\.lock: .*errno 20"):
        run_lock(tmp_path / "file" / "run").__enter__()


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "secret").write_text("do not touch")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "secret")
    with pytest.raises(WriteError, match=r"run\.lock"), run_lock(tmp_path / "run"):
        pass
    assert (tmp_path / "secret").read_text() == "do not touch"


def test_a_lock_makes_no_folder_that_stays_empty(tmp_path):
    path = tmp_path / "runs" / "a"
    with pytest.raises(IsADirectoryError), run_lock(path):
        path.read_bytes()
    assert list(tmp_path.iterdir()) == []
    with run_lock(path):
        (path / "config.toml").touch()
    assert sorted(each.name for each in path.iterdir()) == ["config.toml", "run.lock"]
    (path / "config.toml").unlink()
    with run_lock(path):
        pass
    assert path.is_dir(), "it was there before"


def save_for_ever(directory: Path, ready: "multiprocessing.synchronize.Event") -> None:
    torch.set_num_threads(1)
    step = 0
    while True:
        step += 1
        save_step(directory, step)
        retain(directory, keep=2)
        ready.set()


def test_kill_at_any_moment_leaves_a_loadable_newest(tmp_path):
    context = multiprocessing.get_context("fork")
    for trial in range(8):
        directory = tmp_path / str(trial)
        ready = context.Event()
        process = context.Process(target=save_for_ever, args=(directory, ready))
        process.start()
        assert ready.wait(30)
        time.sleep(0.003 * trial)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        path = newest(directory)
        assert path is not None
        checkpoint = load(path)
        assert_same(checkpoint.tensors, groups(checkpoint.step))
        sweep(directory)
        assert all(entry.name.startswith("step-") for entry in directory.iterdir())

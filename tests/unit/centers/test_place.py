"""Tables in mapped files: the same rows and steps as in memory, and what is refused."""

import copy
import errno
import fcntl
import gc
import os
from pathlib import Path

import pytest
import torch

from manyface.base.errors import ConfigError, WriteError
from manyface.centers import CenterTable, InFiles, Place, RowSGD
from manyface.centers.place import disk_bytes, free_bytes, is_held
from manyface.parallel import Ranks
from manyface.train.build_model import folder_of_rank


def table(place: Place | None = None, *, rows: int = 300, momentum: float = 0.9) -> CenterTable:
    return CenterTable(
        rows, 8, seed=4, optimizer=RowSGD(momentum), dtype=torch.bfloat16, place=place
    )


def move(one: CenterTable) -> None:
    for step in range(3):
        ids = torch.arange(step, 300, 7)
        gradient = torch.randn(len(ids), 8, generator=torch.Generator().manual_seed(step))
        one.active(ids).update(0, len(ids), gradient, factor=torch.ones(()), lr=0.1, step=step)
        one.finish_step(lr=0.1)


def test_a_mapped_table_equals_one_in_memory(tmp_path: Path) -> None:
    mapped, held = table(InFiles(tmp_path / "rows")), table()
    assert torch.equal(mapped.weight, held.weight)
    move(mapped)
    move(held)
    assert torch.equal(mapped.weight, held.weight)
    assert torch.equal(mapped.velocity, held.velocity)
    stored = torch.from_file(
        str(tmp_path / "rows" / "weight.rows"), size=2400, dtype=torch.bfloat16
    )
    assert torch.equal(stored.view(300, 8), held.weight), "the rows are in the file"
    assert (tmp_path / "rows" / "velocity.rows").stat().st_size == 4800


def test_a_loaded_state_lies_in_the_file(tmp_path: Path) -> None:
    held = table()
    move(held)
    mapped = table(InFiles(tmp_path))
    mapped.load_state_dict(held.state_dict())
    stored = torch.from_file(str(tmp_path / "weight.rows"), size=2400, dtype=torch.bfloat16)
    assert torch.equal(stored.view(300, 8), held.weight)


def test_without_momentum_there_is_one_file(tmp_path: Path) -> None:
    one = table(InFiles(tmp_path), momentum=0.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.lock", "weight.rows"]
    assert one.state_of_rows() == {}


def test_a_folder_belongs_to_one_table_at_a_time(tmp_path: Path) -> None:
    one = table(InFiles(tmp_path))
    with pytest.raises(ConfigError, match="of this or another process"):
        InFiles(tmp_path)
    with pytest.raises(ConfigError, match="cannot be copied"):
        copy.deepcopy(one)
    del one
    gc.collect()
    (tmp_path / "weight.rows").write_bytes(b"half written")
    again = table(InFiles(tmp_path), rows=20)
    assert torch.equal(again.weight, table(rows=20).weight), "what was left is overwritten"


def test_a_file_system_without_locks_is_no_reason_not_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert table(InFiles(tmp_path)).weight.shape == (300, 8)


def test_rows_of_another_number_of_ranks_go_unless_they_are_in_use(tmp_path: Path) -> None:
    living, dead = InFiles(tmp_path / "0-of-4"), InFiles(tmp_path / "1-of-4")
    for each in (living, dead):
        each.zeros("rows", (4, 2), torch.float32)
    del each, dead
    gc.collect()
    assert folder_of_rank(str(tmp_path), Ranks()) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-of-4"]
    assert is_held(living.folder)
    assert not is_held(tmp_path / "1-of-4")


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        InFiles(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    small = os.statvfs_result([*real[:4], 1, *real[5:]])  # one free block
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    with pytest.raises(ConfigError, match=r"need .* GiB in .* GiB are free"):
        table(InFiles(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.lock"]


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(WriteError, match="No space left"):
        table(InFiles(tmp_path))
    assert not (tmp_path / "weight.rows").exists()


def test_memory_that_is_too_small_is_refused_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("manyface.centers.place.available_bytes", lambda: 2**20)
    with pytest.raises(ConfigError, match=r"need 7\.0 GiB of memory, 0\.0 GiB are available"):
        table(rows=10**8 + 2**27)


def test_the_memory_of_a_gpu_is_looked_at_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "memory_reserved": 5,
        "memory_allocated": 3,
        "mem_get_info": (7, 80),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(torch.device("cuda")) == 7 + 5 - 3
    assert free_bytes(torch.device("meta")) is None
    monkeypatch.setattr("manyface.centers.place.available_bytes", lambda: 11)
    assert free_bytes(torch.device("cpu")) == 11


@pytest.mark.parametrize("rows, dim", [(-1, 8), (8, 0)])
def test_impossible_tables_are_refused_before_the_folder_is_touched(
    tmp_path: Path, rows: int, dim: int
) -> None:
    (tmp_path / "weight.rows").write_bytes(b"of an earlier run")
    with pytest.raises(ConfigError, match=rf"got {rows} rows of {dim}"):
        CenterTable(rows, dim, seed=0, optimizer=RowSGD(), place=InFiles(tmp_path))
    assert (tmp_path / "weight.rows").read_bytes() == b"of an earlier run"


def test_a_rank_without_classes_has_an_empty_table(tmp_path: Path) -> None:
    for place in (None, InFiles(tmp_path)):
        empty = CenterTable(0, 8, seed=0, optimizer=RowSGD(), place=place)
        assert empty.weight.shape == empty.velocity.shape == (0, 8)
        empty.flush()


def test_bytes_that_a_disk_has_for_rows(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert disk_bytes(tmp_path / "not" / "made") == pytest.approx(free, rel=0.05)
    assert not (tmp_path / "not").exists()
    (tmp_path / "weight.rows").write_bytes(bytes(8 << 20))
    (tmp_path / "is-a-file").touch()
    left = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert disk_bytes(tmp_path) >= left  # what is replaced counts as free
    with pytest.raises(WriteError):
        disk_bytes(tmp_path / "is-a-file" / "rows")

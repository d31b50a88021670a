"""Checkpoints of several ranks: any number reads what any number wrote; all succeed or all fail."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from processes import on_ranks, outcomes

from manyface.base.errors import CheckpointError, DamagedCheckpointError, ReplicaError
from manyface.checkpoint import RowShard, check_replicas, disk, hashing, load, newest, save
from manyface.parallel import Ranks, Shard
from manyface.train.state import Position, newest_good, resume_state, save_state

HOPS = (4, 2, 3, 1, 8, 4)
DIM = 6


def table(num_rows: int) -> dict[str, torch.Tensor]:
    """Rows, their momentum and their counts, of the whole table."""
    draw = torch.Generator().manual_seed(num_rows)
    return {
        "centers.weight": torch.randn(num_rows, DIM, generator=draw),
        "centers.velocity": torch.randn(num_rows, DIM, generator=draw).bfloat16(),
        "centers.last_step": torch.randint(-(2**60), 2**60, (num_rows,), generator=draw),
    }


class Method:
    """A net that each rank has, and a table of which it has some rows; nothing computes."""

    def __init__(self, num_rows: int, ranks: Ranks, *, filled: bool) -> None:
        self.ranks, self.shard = ranks, Shard.of(num_rows, rank=ranks.rank, size=ranks.size)
        self.net = {"weight": torch.full((3, 2), 7.0 if filled else 0.0)}
        whole = table(num_rows)
        self.rows = {
            name: values[self.shard.start : self.shard.stop].clone() * int(filled)
            for name, values in whole.items()
        }

    def state_dict(self):
        rows = {name: RowShard(values, self.shard) for name, values in self.rows.items()}
        counters = {"num_steps": torch.tensor(12), "lr": (0.1 + 0.2, None)}
        return {"backbone": self.net, "head": {**rows, **counters}}

    def load_state_dict(self, state):
        assert state["head"]["lr"] == (0.1 + 0.2, None)
        assert state["head"]["num_steps"].item() == 12
        self.net["weight"].copy_(state["backbone"]["weight"])
        for name, values in self.rows.items():
            values.copy_(state["head"][name])


def write(folder: Path, num_rows: int) -> None:
    ranks = Ranks()
    save_state(folder, Method(num_rows, ranks, filled=True), Position(step=1))


def hop(folder: Path, number: int, num_rows: int) -> list[str]:
    """Read what the ranks before wrote, compare, write on; names of what differs."""
    ranks = Ranks()
    method = Method(num_rows, ranks, filled=False)
    position, path = resume_state(folder, method)
    assert path is not None
    assert position.step == number
    expected = Method(num_rows, ranks, filled=True)
    position.step += 1
    save_state(folder, method, position)
    pairs = {name: (values, expected.rows[name]) for name, values in method.rows.items()}
    pairs["weight"] = (method.net["weight"], expected.net["weight"])
    return [name for name, (one, other) in pairs.items() if not torch.equal(one, other)]


def reshape(folder: Path, num_rows: int) -> None:
    on_ranks(write, HOPS[0], folder, num_rows)
    for number, size in enumerate(HOPS[1:], start=1):
        assert on_ranks(hop, size, folder, number, num_rows) == [[]] * size
    whole = load(newest(folder)).group("head")
    for name, values in table(num_rows).items():
        assert torch.equal(whole[name].rows(0, num_rows), values)


@pytest.mark.parametrize("num_rows", [3, 5, 1003])
def test_rows_and_momentum_survive_4_2_3_1_8_4_ranks(tmp_path: Path, num_rows: int) -> None:
    reshape(tmp_path, num_rows)


@pytest.mark.slow
def test_a_million_rows_survive_them_too(tmp_path: Path) -> None:
    reshape(tmp_path, 1_000_003)


def fails_on(folder: Path, rank: int, what: str, number: int) -> list[str]:
    """Save with a system that fails for one rank; what each was told, and that it can go on."""
    ranks = Ranks()
    method = Method(5, ranks, filled=True)
    save_state(folder, method, Position(step=1))
    kept = getattr(disk.NewFile, what)

    def fail(self, *data):
        raise OSError(number, os.strerror(number), str(self.path))

    if ranks.rank == rank:
        setattr(disk.NewFile, what, fail)
    with pytest.raises(CheckpointError) as caught:
        save_state(folder, method, Position(step=2))
    setattr(disk.NewFile, what, kept)
    ranks.wait_for_all("the failed save")
    names = sorted(path.name for path in folder.iterdir())
    save_state(folder, method, Position(step=2))
    return [str(caught.value), *names]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("what, number", [("write", errno.ENOSPC), ("sync", errno.EIO)])
def test_a_failure_on_one_rank_is_the_same_error_on_all(
    tmp_path: Path, rank: int, what: str, number: int
) -> None:
    found = on_ranks(fails_on, 3, tmp_path, rank, what, number)
    assert found[0] == found[1] == found[2]
    text, *names = found[0]
    code = errno.errorcode[number]
    assert f"step-00000002: rank {rank} of 3: {tmp_path}/.tmp-2-" in text
    assert f"({code}, errno {number}); the newest good checkpoint is still" in text
    assert names == ["step-00000001"]
    assert newest(tmp_path) == tmp_path / "step-00000002"


def read(path: Path) -> str:
    try:
        load(path)
    except DamagedCheckpointError as error:
        return str(error)
    return "nothing was noticed"


def test_damage_that_one_rank_sees_is_refused_by_all(tmp_path: Path) -> None:
    on_ranks(write, 4, tmp_path, 1003)
    path = newest(tmp_path)
    for file in path.glob("*.safetensors"):
        good = file.read_bytes()
        bad = bytearray(good)
        bad[-1] ^= 1
        file.write_bytes(bad)
        found = on_ranks(read, 3, path)
        assert len(set(found)) == 1
        assert found[0].startswith("rank ")
        assert f"{file} is damaged" in found[0]
        file.write_bytes(good)
    assert on_ranks(read, 3, path) == ["nothing was noticed"] * 3


def resume(folder: Path) -> tuple[int, list[str]]:
    warnings: list[str] = []
    checkpoint = newest_good(folder, warn=warnings.append)
    assert checkpoint is not None
    return checkpoint.step, warnings


def test_all_ranks_fall_back_to_the_one_before(tmp_path: Path) -> None:
    on_ranks(write, 2, tmp_path, 11)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002")  # says step 1
    found = on_ranks(resume, 3, tmp_path)
    assert found[0] == found[1] == found[2]
    step, warnings = found[0]
    assert step == 1
    assert "put aside as damaged-step-00000002-0" in warnings[0]


def drift(rank: int) -> str:
    ranks = Ranks()
    tensors = {
        "net": {"a": torch.ones(3), "b": torch.ones(2, 2).bfloat16(), "c": torch.tensor(4)},
        "head": {"rows": RowShard(torch.rand(1), Shard.of(3, rank=ranks.rank, size=3))},
    }
    check_replicas(tensors, ranks)
    if ranks.rank == rank:
        tensors["net"]["b"][0, 1] += 2**-7
    try:
        check_replicas(tensors, ranks)
    except ReplicaError as error:
        return str(error)
    return "nothing was noticed"


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_copy_that_differs_is_named_on_all_ranks(rank: int) -> None:
    found = on_ranks(drift, 3, rank)
    assert len(set(found)) == 1
    assert found[0].startswith(f"rank {rank} of 3 has another net: b than the other ranks")


def save_shards(folder: Path, shards: list[tuple[int, int, int]], dims: list[int]) -> str:
    rank = Ranks().rank
    start, stop, total = shards[rank]
    rows = RowShard(torch.zeros(stop - start, dims[rank]), Shard(start, stop, total))
    try:
        save(folder, step=1, tensors={"head": {"w": rows}}, state={})
    except CheckpointError as error:
        return str(error)
    return "saved"


@pytest.mark.parametrize(
    "shards, dims, said",
    [
        ([(0, 2, 4), (2, 4, 4)], [3, 3], "saved"),
        ([(2, 4, 4), (0, 2, 4)], [3, 3], "saved"),
        ([(0, 2, 4), (2, 3, 4)], [3, 3], "expected row 3 of 4 to come next"),
        ([(0, 2, 4), (1, 4, 4)], [3, 3], "expected row 2 of 4 to come next"),
        ([(0, 2, 4), (2, 5, 5)], [3, 3], "all must hold rows of one table"),
        ([(0, 2, 4), (2, 4, 4)], [3, 2], "all must hold rows of one table"),
    ],
)
def test_only_rows_that_make_one_table_are_saved(
    tmp_path: Path, shards: list[tuple[int, int, int]], dims: list[int], said: str
) -> None:
    found = on_ranks(save_shards, 2, tmp_path, shards, dims)
    assert found[0] == found[1]
    assert said in found[0]
    assert bool(list(tmp_path.iterdir())) == (said == "saved")


def wrong_method(folder: Path, num_rows: int, dtype: torch.dtype) -> str:
    method = Method(num_rows, Ranks(), filled=False)
    method.rows["centers.velocity"] = method.rows["centers.velocity"].to(dtype)
    try:
        resume_state(folder, method)
    except CheckpointError as error:
        return str(error)
    return "resumed"


def test_another_shape_or_dtype_is_refused_not_cast(tmp_path: Path) -> None:
    on_ranks(write, 2, tmp_path, 11)
    for text in on_ranks(wrong_method, 2, tmp_path, 12, torch.bfloat16):
        assert "holds a table [11, 6], this run needs [12, 6]" in text
    for text in on_ranks(wrong_method, 2, tmp_path, 11, torch.float16):
        assert "holds rows of [6] bfloat16, this run needs [6] float16" in text


def share_read(path: Path) -> tuple[int, int]:
    """Bytes that this rank read to check, and that its rows have."""
    counted = [0]
    check = hashing.check_blocks

    def count(path, facts, blocks):
        for block in blocks:
            left = facts.num_bytes - block * facts.block_bytes
            counted[0] += min(facts.block_bytes, left)
        check(path, facts, blocks)

    import manyface.checkpoint.verify as verify_module

    verify_module.check_blocks = count
    ranks = Ranks()
    checkpoint = load(path, ranks=ranks)
    shard = Shard.of(20_011, rank=ranks.rank, size=ranks.size)
    found = checkpoint.tables["head"]["w"].rows(shard.start, shard.stop)
    return counted[0], found.nbytes


def save_big(folder: Path) -> None:
    hashing.SMALLEST_BLOCK = 4096
    ranks = Ranks()
    shard = Shard.of(20_011, rank=ranks.rank, size=ranks.size)
    rows = RowShard(torch.rand(len(shard), 16), shard)
    save(folder, step=1, tensors={"head": {"w": rows}}, state={}, ranks=ranks)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_rank_that_loads_a_kth_part_reads_little_more(tmp_path: Path, size: int) -> None:
    on_ranks(save_big, 3, tmp_path)
    found = on_ranks(share_read, size, newest(tmp_path))
    whole = sum(path.stat().st_size for path in newest(tmp_path).glob("head-*"))
    for checked, rows in found:
        assert checked <= 1.1 * whole / size
        assert rows <= 1.01 * whole / size
    assert sum(checked for checked, _ in found) >= whole


def die_in_save(folder: Path) -> str:
    ranks = Ranks()
    method = Method(5, ranks, filled=True)
    save_state(folder, method, Position(step=1))
    if ranks.rank == 1:
        disk.NewFile.sync = lambda self: os._exit(9)
    try:
        save_state(folder, method, Position(step=2))
    except Exception as error:
        return type(error).__name__
    return "saved"


def test_a_rank_that_dies_in_a_save_leaves_the_one_before(tmp_path: Path) -> None:
    found = outcomes(die_in_save, 3, tmp_path)
    assert [found[0], found[2]] == [(True, "PeerError")] * 2
    assert newest(tmp_path) == tmp_path / "step-00000001"
    load(newest(tmp_path))

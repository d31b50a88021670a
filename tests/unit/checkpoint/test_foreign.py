"""insightface's shards of class centers: any number of ranks, each damage named with its file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from manyface.base.errors import CheckpointError, NonFiniteError
from manyface.checkpoint.foreign import ForeignCenters

NUM_CLASSES, DIM = 11, 4
Write = Callable[[Path, int, Tensor], None]


def training_checkpoint(folder: Path, rank: int, rows: Tensor) -> None:
    """As train_v2.py with save_all_states."""
    backbone, weight = torch.nn.Linear(3, 3), torch.nn.Parameter(rows.clone())
    optimizer = torch.optim.SGD([*backbone.parameters(), weight], lr=0.1, momentum=0.9)
    (weight.sum() + backbone(torch.ones(3)).sum()).backward()
    optimizer.step()
    content = {
        "epoch": 2,
        "global_step": 34,
        "state_dict_backbone": backbone.state_dict(),
        "state_dict_softmax_fc": {"weight": rows},
        "state_optimizer": optimizer.state_dict(),
        "state_lr_scheduler": torch.optim.lr_scheduler.PolynomialLR(optimizer, 9).state_dict(),
    }
    torch.save(content, folder / f"checkpoint_gpu_{rank}.pt")


def head_state(folder: Path, rank: int, rows: Tensor) -> None:
    torch.save({"weight": rows, "weight_mom": rows}, folder / f"softmax_fc_gpu_{rank}.pt")


def rows_alone(folder: Path, rank: int, rows: Tensor, sign: str = "_") -> None:
    torch.save(rows, folder / f"rank{sign}{rank}_softmax_weight.pt")
    torch.save(-rows, folder / f"rank{sign}{rank}_softmax_weight_mom.pt")


KINDS: dict[str, Write] = {
    "checkpoint_gpu": training_checkpoint,
    "softmax_fc_gpu": head_state,
    "rank_": rows_alone,
    "rank:": lambda folder, rank, rows: rows_alone(folder, rank, rows, ":"),
}


def shards(table: Tensor, ranks: int) -> list[Tensor]:
    """Contiguous, N // W each and one more for the first N mod W."""
    sizes = [len(table) // ranks + (rank < len(table) % ranks) for rank in range(ranks)]
    return [piece.clone() for piece in table.split(sizes)]


def write(folder: Path, ranks: int, kind: str = "softmax_fc_gpu") -> Tensor:
    table = torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(3))
    for rank, rows in enumerate(shards(table, ranks)):
        KINDS[kind](folder, rank, rows)
    return table


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        ForeignCenters(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 12])
def test_any_rows_of_any_number_of_ranks(tmp_path: Path, kind: str, ranks: int) -> None:
    table = write(tmp_path, ranks, kind)
    (tmp_path / "model.pt").write_bytes(b"not looked at")
    found = ForeignCenters(tmp_path)
    assert (found.num_rows, found.dim) == (NUM_CLASSES, DIM)
    for start in range(NUM_CLASSES + 1):
        for stop in range(start, NUM_CLASSES + 1):
            assert torch.equal(found.rows(start, stop), table[start:stop])


@pytest.mark.parametrize("name", ["softmax_fc_gpu_0.pt", "anything.safetensors"])
def test_one_file(tmp_path: Path, name: str) -> None:
    table = torch.randn(NUM_CLASSES, DIM)
    path = tmp_path / name
    save_file({"weight": table}, path) if "safetensors" in name else head_state(tmp_path, 0, table)
    assert torch.equal(ForeignCenters(path).rows(0, NUM_CLASSES), table)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_are_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    table = torch.randn(NUM_CLASSES, DIM).to(dtype)
    for rank, rows in enumerate(shards(table, 2)):
        head_state(tmp_path, rank, rows)
    found = ForeignCenters(str(tmp_path)).rows(2, 9)
    assert found.dtype == torch.float32
    assert torch.equal(found, table[2:9].float())


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file or folder" in message(tmp_path / "absent")
    assert "none of them" in message(tmp_path)


def test_files_of_two_kinds(tmp_path: Path) -> None:
    write(tmp_path, 2, "softmax_fc_gpu")
    write(tmp_path, 2, "checkpoint_gpu")
    text = message(tmp_path)
    assert "got checkpoint_gpu_0.pt and softmax_fc_gpu_0.pt" in text


def test_two_files_of_one_rank(tmp_path: Path) -> None:
    write(tmp_path, 2, "rank_")
    write(tmp_path, 2, "rank:")
    assert "both of rank 0" in message(tmp_path)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_missing_rank(tmp_path: Path, rank: int) -> None:
    write(tmp_path, 3)
    (tmp_path / f"softmax_fc_gpu_{rank}.pt").unlink()
    assert f"rank {rank} is missing: expected ranks 0 to 2" in message(tmp_path)


def test_the_last_rank_is_missing(tmp_path: Path) -> None:
    write(tmp_path, 3)  # 4, 4, 3: what is left could be of two ranks, with fewer classes
    (tmp_path / "softmax_fc_gpu_2.pt").unlink()
    assert ForeignCenters(tmp_path).num_rows == 8  # the head says how many it expects


def test_an_extra_file(tmp_path: Path) -> None:
    write(tmp_path, 3)
    head_state(tmp_path, 3, torch.randn(4, DIM))
    text = message(tmp_path)
    assert "softmax_fc_gpu_2.pt: expected 4 rows, as 15 are spread over 4 ranks, got 3" in text


def test_a_file_of_another_run(tmp_path: Path) -> None:
    write(tmp_path, 3)
    head_state(tmp_path, 1, torch.randn(4, DIM + 1))
    text = message(tmp_path)
    assert "softmax_fc_gpu_1.pt: expected rows of length 4 in float32" in text
    assert "got 5 in float32" in text


def test_another_dtype(tmp_path: Path) -> None:
    write(tmp_path, 3)
    head_state(tmp_path, 2, torch.randn(3, DIM).half())
    text = message(tmp_path)
    assert "softmax_fc_gpu_2.pt" in text
    assert "got 4 in float16" in text


@pytest.mark.parametrize(
    "content, got",
    [
        ({"weights": torch.ones(2, 2)}, "got dict of weights"),
        ({"state_dict_softmax_fc": {}}, "got dict of state_dict_softmax_fc"),
        ({"weight": 3}, "got dict of weight"),
        ([torch.ones(2, 2)], "got list"),
        (torch.ones(4), "got [4] in float32"),
        (torch.ones(2, 2, 2), "got [2, 2, 2] in float32"),
        (torch.ones(2, 0), "got [2, 0] in float32"),
        (torch.ones(2, 2, dtype=torch.int64), "got [2, 2] in int64"),
        (torch.ones(2, 2, dtype=torch.complex64), "got [2, 2] in complex64"),
        (torch.eye(2).to_sparse(), "in float32"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: object, got: str) -> None:
    torch.save(content, tmp_path / "softmax_fc_gpu_0.pt")
    assert got in message(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["checkpoint_gpu", "rank_"])
def test_a_truncated_file(tmp_path: Path, share: float, kind: str) -> None:
    write(tmp_path, 2, kind)
    (path,) = (path for path in tmp_path.iterdir() if "1" in path.name and "mom" not in path.name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=path.name):
        ForeignCenters(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "softmax_fc_gpu_0.pt"])
def test_a_file_of_noise(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 9)
    message(tmp_path / name)


def test_an_old_format_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "rank_0_softmax_weight.pt"
    torch.save(torch.ones(3, 2), path, _use_new_zipfile_serialization=False)
    assert "torch 1.6" in message(path)


class Payload:
    def __init__(self, victim: str) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, (f"open({self.victim!r}, 'w').write('ran')",))


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = {"weight": torch.ones(3, 2), "state_optimizer": Payload(str(victim))}
    torch.save(content, tmp_path / "softmax_fc_gpu_0.pt")
    text = message(tmp_path)
    assert "softmax_fc_gpu_0.pt" in text
    assert "never executed" in text
    assert not victim.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    table = write(tmp_path, 3)
    rows = shards(table, 3)[1]
    rows[2, 1] = value
    head_state(tmp_path, 1, rows)
    found = ForeignCenters(tmp_path)
    assert torch.equal(found.rows(0, 6), table[:6])
    with pytest.raises(NonFiniteError, match=r"softmax_fc_gpu_1\.pt: row 2 holds NaN"):
        found.rows(5, 7)


def test_files_are_mapped_and_read_where_they_are_needed(tmp_path: Path) -> None:
    for rank in range(3):  # 3 x 16 MiB
        rows_alone(tmp_path, rank, torch.full((2**13, 512), float(rank)))
    before = resident_bytes()
    found = ForeignCenters(tmp_path)
    assert found.rows(2**13 - 1, 2**13 + 1)[:, 0].tolist() == [0.0, 1.0]
    assert resident_bytes() - before < 2**23


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

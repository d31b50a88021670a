r"""Class centers that insightface wrote, one file per rank, or one safetensors file.

Read from a folder, W files of one kind, rank r holding N // W rows and one more where r < N mod W:

    checkpoint_gpu_{r}.pt        state_dict_softmax_fc -> weight   (save_all_states)
    softmax_fc_gpu_{r}.pt        weight                            (2022)
    rank_{r}_softmax_weight.pt   the rows alone; rank:{r}_... too  (2020, 2021)

or one file: any of these of a run with one rank, or .safetensors with `weight` [N, D]. Class c is
row c. Momentum is not read: a head here begins with its own, 0.

Files are mapped into memory (`torch.load(weights_only=True, mmap=True)`: no foreign code runs), so
`rows` reads the bytes of those rows only. They carry no checksums: a value that is not finite is
noticed, another flipped bit is not.
"""

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manyface.base.errors import CheckpointError, NonFiniteError, one_line

_KINDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"checkpoint_gpu_(\d+)\.pt",
        r"softmax_fc_gpu_(\d+)\.pt",
        r"rank[:_](\d+)_softmax_weight\.pt",
    )
)
_INSIDE, _WEIGHT = "state_dict_softmax_fc", "weight"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class _Shard:
    path: Path
    rows: Tensor  # [n, D], mapped


class ForeignCenters:
    """The class centers at `path`, a folder or a file: `num_rows` N, `dim` D, `rows(start, stop)`.

    Raises:
        CheckpointError: nothing is there, a rank is missing or doubled, a file is damaged, holds
            something else, or does not fit the others.
    """

    def __init__(self, path: Path | str) -> None:
        paths = _find(Path(path))
        self._shards = [_Shard(path, _read(path)) for path in paths]
        self.num_rows = sum(len(shard.rows) for shard in self._shards)
        self.dim = self._shards[0].rows.shape[1]
        _check(self._shards, self.num_rows)

    def rows(self, start: int, stop: int) -> Tensor:
        """Centers of classes [start, stop), float32 [stop - start, D].

        Raises:
            NonFiniteError: one of them holds NaN or infinity.
        """
        pieces = [torch.empty(0, self.dim), *self._pieces(start, stop)]
        return torch.cat(pieces)

    def _pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        first = 0
        for shard in self._shards:
            begin, end = max(start - first, 0), min(stop - first, len(shard.rows))
            if begin < end:
                piece = shard.rows[begin:end].to(torch.float32)
                _check_finite(piece, shard.path, first=begin)
                yield piece
            first += len(shard.rows)


def _find(path: Path) -> list[Path]:
    """The files in order of rank."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"no class centers at {path}: there is no such file or folder")
    found = [ranks for kind in _KINDS if (ranks := _ranks(path, kind))]
    if len(found) != 1:
        some = " and ".join(ranks[min(ranks)].name for ranks in found) or "none of them"
        raise CheckpointError(
            f"{path}: expected files of one kind, checkpoint_gpu_0.pt, softmax_fc_gpu_0.pt or "
            f"rank_0_softmax_weight.pt and on, got {some}; a single file is given by its own path"
        )
    (ranks,) = found
    missing = next((i for i, rank in enumerate(sorted(ranks)) if rank != i), None)
    if missing is not None:
        example = ranks[max(ranks)].name
        raise CheckpointError(
            f"{path}: the file of rank {missing} is missing: expected ranks 0 to {max(ranks)}, as "
            f"there is {example}, got {len(ranks)} files; get it, or take away another run's"
        )
    return [ranks[rank] for rank in sorted(ranks)]


def _ranks(folder: Path, kind: re.Pattern[str]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if match := kind.fullmatch(path.name):
            rank = int(match.group(1))
            if rank in found:
                raise CheckpointError(
                    f"{path} and {found[rank].name} are both of rank {rank}; expected one of them"
                )
            found[rank] = path
    return found


def _read(path: Path) -> Tensor:
    try:
        content = _open(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no torch file, or holds Python objects besides tensors, which are never "
            "executed; save its rows alone, best as .safetensors with `weight`"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # both readers raise whatever a damaged file leads them to
        raise CheckpointError(
            f"cannot read class centers from {path} ({one_line(error)}); is it whole, and "
            "written by torch 1.6 or later? get it again, or save it anew"
        ) from error
    return _rows_in(content, path)


def _open(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path, device="cpu")  # views of the mapped file
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _rows_in(content: Any, path: Path) -> Tensor:
    """The tensor [n, D] in what a file holds."""
    rows = content
    for key in (_INSIDE, _WEIGHT):
        rows = rows.get(key, rows) if isinstance(rows, Mapping) else rows
    if not isinstance(rows, Tensor):
        keys = ", ".join(sorted(map(str, content))[:5]) if isinstance(content, Mapping) else ""
        raise CheckpointError(
            f"{path} holds no class centers: expected a tensor `{_WEIGHT}`, alone or in "
            f"{_INSIDE}, got {type(content).__name__}" + (f" of {keys}" if keys else "")
        )
    good = rows.ndim == 2 and rows.dtype in _DTYPES and rows.layout == torch.strided
    if not good or rows.shape[1] == 0:
        raise CheckpointError(
            f"{path}: expected class centers [rows, D] in {_names(_DTYPES)}, got "
            f"{list(rows.shape)} in {_names([rows.dtype])}"
        )
    return rows.detach()


def _check(shards: Sequence[_Shard], num_rows: int) -> None:
    """Every file fits the first one, and the rows are spread as insightface spreads them."""
    first, ranks = shards[0], len(shards)
    for rank, (path, rows) in enumerate((shard.path, shard.rows) for shard in shards):
        kind, expected = (rows.shape[1], rows.dtype), (first.rows.shape[1], first.rows.dtype)
        if kind != expected:
            raise CheckpointError(
                f"{path}: expected rows of length {expected[0]} in {_names([expected[1]])}, as in "
                f"{first.path.name}, got {kind[0]} in {_names([kind[1]])}; is it of another run?"
            )
        share = num_rows // ranks + (rank < num_rows % ranks)
        if len(rows) != share:
            raise CheckpointError(
                f"{path}: expected {share} rows, as {num_rows} are spread over {ranks} ranks, got "
                f"{len(rows)}; is a file missing, or of another run?"
            )


def _check_finite(rows: Tensor, path: Path, *, first: int) -> None:
    finite = torch.isfinite(rows).all(dim=1)
    if not bool(finite.all()):
        row = first + int((~finite).nonzero()[0])
        raise NonFiniteError(f"{path}: row {row} holds NaN or infinity; take an earlier checkpoint")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)

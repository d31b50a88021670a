"""insightface's PartialFC_V2, run from a checkout that the user names; none of it is in here.

Its code runs as it is, trained as its train_v2.py does: CombinedMarginLoss with the margin of
CosFace, torch.optim.SGD over all its rows. Two things are arranged around it: what is measured is
the CPU, so its calls of `.cuda()` do nothing; and it asks for torch.distributed, which gets a
group of this one process.
"""

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, distributed

from manyface.base.errors import ConfigError, one_line
from manyface.bench.centers import partial_rows, table_bytes
from manyface.bench.rivals import SCALE, DenseRun, autograd_bytes, draw_bytes
from manyface.bench.shape import Needs, Shape

_HEAD, _LOSSES = "partial_fc_v2.py", "losses.py"
_INSIDE = Path("recognition/arcface_torch")  # of a checkout of insightface


def build_arcface_torch(shape: Shape) -> DenseRun:
    """PartialFC_V2 in fp32, which is how its train_v2.py makes it."""
    return _build(shape, half=False)


def build_arcface_torch_bf16(shape: Shape) -> DenseRun:
    """PartialFC_V2 under bf16 autocast.

    With its own flag `fp16`, without which it cannot (it stores bf16 probabilities into an fp32
    loss). On a CPU the flag only makes the logits fp32 after the product, which the autocast
    around it does in bf16.
    """
    return _build(shape, half=True)


def no_checkout(shape: Shape) -> str | None:
    """Why it cannot run: nobody has said where its code is."""
    if shape.checkout is not None:
        return None
    return "arcface_torch is insightface's code: name a checkout, --rival arcface_torch=DIR"


def check_arcface_torch(shape: Shape) -> None:
    """Both of its files are there, and it is fp32, whatever embeddings it is given."""
    find_folder(shape.checkout)
    if shape.dtype != "float32":
        raise ConfigError(
            f"arcface_torch has float32 rows only, got dtype {shape.dtype!r}; leave --dtype out"
        )


def arcface_torch_needs(shape: Shape) -> Needs:
    """Most of: loss, gradient of the unit rows, optimizer; under autocast the same within 3 %.

    Loss: sampled rows and unit rows, four copies of the logits. Unit rows: six copies of the
    sample. Optimizer: a gradient of all rows, and that with weight decay. Nothing is gathered at
    sample rate 1.
    """
    rows, active = 4 * shape.dim * shape.classes, 4 * shape.dim * partial_rows(shape)
    gathered = active if shape.sample_rate < 1 else 0
    logits = 4 * shape.batch * partial_rows(shape)
    most = max(gathered + active + 4 * logits, gathered + 5 * active, 2 * rows)
    most += draw_bytes(shape)
    step = autograd_bytes(most, shape, matrices=(rows, active, logits))
    return Needs(table_bytes(shape), 0, step)


def find_folder(checkout: str | None) -> Path:
    """The folder with partial_fc_v2.py and losses.py in `checkout`.

    Raises:
        ConfigError: there is none.
    """
    root = Path(checkout or "").expanduser()
    if checkout is None or not root.is_dir():
        raise ConfigError(f"no folder {checkout}; --rival arcface_torch=DIR takes one")
    for folder in (root, root / _INSIDE):
        if (folder / _HEAD).is_file() and (folder / _LOSSES).is_file():
            return folder
    raise ConfigError(
        f"no {_HEAD} with {_LOSSES} in {root}, nor in its {_INSIDE}; "
        "--rival arcface_torch=DIR takes a checkout of insightface"
    )


def _build(shape: Shape, *, half: bool) -> DenseRun:
    folder = find_folder(shape.checkout)
    head_class = _load(folder / _HEAD, "PartialFC_V2")
    margin = _load(folder / _LOSSES, "CombinedMarginLoss")(SCALE, 1.0, 0.0, 0.4)
    _join_group()
    with _without_cuda():
        head = head_class(margin, shape.dim, shape.classes, shape.sample_rate, half)
        head.train().cuda()

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        with _without_cuda(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            found: Tensor = head(embeddings, labels)
        return found

    digest = hashlib.sha256((folder / _HEAD).read_bytes()).hexdigest()
    (rows,) = head.parameters()
    return DenseRun(shape, rows, loss, {"checkout": str(folder), "sha256": digest})


def _load(path: Path, name: str) -> Any:
    """The class `name` of a file, which may be anybody's.

    Raises:
        ConfigError: the file cannot be run, or has no such class.
    """
    try:
        return getattr(_module(path), name)
    except Exception as error:
        raise ConfigError(
            f"cannot use {path}: {one_line(error)}; "
            "--rival arcface_torch=DIR takes a checkout of insightface"
        ) from error


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"arcface_torch_{path.stem}", path)
    assert spec is not None  # noqa: S101  its name ends in .py
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _join_group() -> None:
    """torch.distributed, of this process alone."""
    if not distributed.is_initialized():
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)


@contextmanager
def _without_cuda() -> Iterator[None]:
    """`.cuda()` of tensors and modules returns them as they are."""

    def stay(self: Any, *_: Any, **__: Any) -> Any:
        return self

    with patch.object(Tensor, "cuda", stay), patch.object(torch.nn.Module, "cuda", stay):
        yield

"""Weights of a trained backbone from a file: ours, or a published one.

Read: safetensors, or a file of torch, always with weights_only=True (no stranger's pickle runs);
which of both it is, its first bytes say.
Inside: a plain state_dict, or one under "state_dict_backbone" (insightface's checkpoint_gpu_*.pt),
"state_dict" or "model". The prefixes that DDP ("module."), torch.compile ("_orig_mod.") and what a
net was a part of ("model." in AdaFace's files, "net." in CVLface's) leave are taken off, and class
centers beside the net ("head.") left out. Then everything must fit, name by name and shape by
shape: a backbone of which a layer kept its random values would still give embeddings, only bad
ones.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manyface.backbones.base import Backbone
from manyface.backbones.registry import BACKBONES, create_backbone
from manyface.base.errors import CheckpointError, one_line

CONTAINERS = ("state_dict_backbone", "state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
BESIDE = "head."  # of a Lightning module: no part of the net
TORCH_STARTS = (b"PK\x03\x04", b"\x80")  # a zip archive; a pickle, as torch wrote up to 1.5
# What values of weights may be; whatever else torch knows (8-bit floats, quantised, complex) is not
# turned into them without a word.
KINDS = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
)
# Absent from weights that were written before torch 0.4.1 or converted; torch then starts it at 0.
OPTIONAL = ".num_batches_tracked"


def load_backbone_weights(net: nn.Module, path: Path | str) -> None:
    """Fill `net` (plain, unwrapped) with the weights in the file at `path`.

    Raises:
        CheckpointError: no such file, not readable as tensors, or any name or shape does not fit.
    """
    path = Path(path)
    state = read_weights(path).tensors
    check_fit(net, state, path)
    net.load_state_dict(state, strict=False)  # strict but for OPTIONAL: checked above


def check_fit(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError if `state`, of the file at `path`, has not all tensors of `net`, or
    others; `net` may be on the meta device."""
    if problems := _problems(net.state_dict(), state):
        raise CheckpointError(f"{path} does not fit this backbone: {problems}{_guess(net, state)}")


@dataclass(frozen=True)
class Weights:
    """The tensors of a net, on the CPU, by the names that the net itself has for them.

    Attributes:
        wrapper: what stood before each name in the file: "net." or the like, or nothing.
    """

    tensors: dict[str, Tensor]
    wrapper: str = ""


def read_weights(path: Path) -> Weights:
    """What the file at `path` holds.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    state = _find_state_dict(_read(path), path)
    _check_plain(state, path)
    return _without_wrappers(state)


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file that begins so (9 bytes or more) is one of safetensors."""
    return (
        len(start) > 8 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") < 2**27
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"no backbone weights at {path}: there is no such file")
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if looks_like_safetensors(start):
            from safetensors.torch import load_file  # heads need backbones, and not this

            return load_file(path, device="cpu")
        if start.startswith(TORCH_STARTS):
            _check_stored(path, start)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no torch file, or holds Python objects besides tensors, which are never "
            "executed; save the state_dict alone, best as .safetensors"
        ) from error
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # both readers raise whatever a damaged file leads them to
        raise CheckpointError(
            f"cannot read backbone weights from {path} ({one_line(error)}); is it whole? "
            "get it again"
        ) from error
    raise CheckpointError(
        f"cannot read backbone weights from {path}: expected a file of safetensors or of torch, "
        f"got one that begins with {start!r}"
    )


def _check_stored(path: Path, start: bytes) -> None:
    """Of a zip archive: its parts are as large as they lie in it, as torch writes them."""
    if not start.startswith(b"PK"):
        return
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise CheckpointError(
                f"{path} is compressed, which torch's files are not: it could take any amount of "
                "memory; unpack it, or save the state_dict again"
            )


def _check_plain(state: Mapping[str, Tensor], path: Path) -> None:
    """Numbers in memory, no more of them than the file holds: a tensor may claim to be any size by
    repeating itself."""
    for name, tensor in state.items():
        if tensor.dtype not in KINDS or tensor.layout != torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise CheckpointError(
                f"{path}: {name} is a tensor of another kind ({kind}); save the weights as plain "
                "tensors of floats"
            )
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path} has {path.stat().st_size} bytes and claims tensors of {total}: they repeat "
            "themselves; save a state_dict of tensors of their own"
        )


def _find_state_dict(content: Any, path: Path) -> Mapping[str, Tensor]:
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, expected a state_dict (name -> tensor)"
        )
    others = [
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(
            f"{path} holds no state_dict: {len(others)} of {len(content)} entries are no tensors "
            f"with a name ({_some(others)}); a state_dict is looked for at the top and under "
            f"{', '.join(map(repr, CONTAINERS))}"
        )
    return content


def _without_wrappers(state: Mapping[str, Tensor]) -> Weights:
    result = {k: value for k, value in state.items() if not k.startswith(BESIDE)} or dict(state)
    wrapper = ""
    while prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in result)), None):
        result = {name.removeprefix(prefix): value for name, value in result.items()}
        wrapper += prefix
    return Weights(result, wrapper)


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """One clause per kind of misfit, with counts and the first few names; empty when all fits."""
    missing = [k for k in expected if k not in found and not k.endswith(OPTIONAL)]
    unknown = [k for k in found if k not in expected]
    reshaped = [k for k in expected if k in found and expected[k].shape != found[k].shape]
    converted = [
        k
        for k in expected
        if k in found and expected[k].is_floating_point() and not found[k].is_floating_point()
    ]
    clauses = []
    if missing:
        clauses.append(f"{len(missing)} of {len(expected)} tensors missing ({_some(missing)})")
    if unknown:
        hints = [_with_nearest(name, missing or list(expected)) for name in unknown[:3]]
        clauses.append(f"{len(unknown)} unknown ({_some(hints, total=len(unknown))})")
    if reshaped:
        shapes = [
            f"{k}: file {list(found[k].shape)}, net {list(expected[k].shape)}" for k in reshaped
        ]
        clauses.append(f"{len(reshaped)} of another shape ({_some(shapes)})")
    if converted:
        kinds = [f"{k}: {found[k].dtype}" for k in converted]
        clauses.append(f"{len(converted)} hold no floats ({_some(kinds)})")
    return "; ".join(clauses)


def _with_nearest(name: str, candidates: list[str]) -> str:
    matches = get_close_matches(name, candidates, n=1)
    return f"{name}, nearest {matches[0]}" if matches else name


def _some(names: list[str], *, total: int | None = None) -> str:
    shown, total = names[:3], len(names) if total is None else total
    return ", ".join(shown) + (", ..." if total > len(shown) else "")


def _guess(net: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Advice: the net of the registry that has all names of the file, if there is one."""
    if not isinstance(net, Backbone):
        return ""
    names = {name for name in state if not name.endswith(OPTIONAL)}
    for known in BACKBONES:
        built = create_backbone(known, device="meta")
        if names == {name for name in built.state_dict() if not name.endswith(OPTIONAL)}:
            if type(built) is type(net) and names == {
                name for name in net.state_dict() if not name.endswith(OPTIONAL)
            }:
                return "; the names fit, so check embedding_size and image_size"
            return f"; the names are those of backbone {known!r}"
    return ""

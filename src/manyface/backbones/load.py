"""Weights of a trained backbone from a file: ours, or a published one.

Read: safetensors; .pt / .pth of torch, always with weights_only=True (no stranger's pickle runs).
Inside: a plain state_dict, or one under "state_dict_backbone" (insightface's checkpoint_gpu_*.pt),
"state_dict" or "model". The prefixes that DDP ("module.") and torch.compile ("_orig_mod.") leave
are taken off. Then everything must fit, name by name and shape by shape: a backbone of which a
layer kept its random values would still give embeddings, only bad ones.
"""

import pickle
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manyface.backbones.base import Backbone
from manyface.backbones.registry import BACKBONES, create_backbone
from manyface.base.errors import CheckpointError

CONTAINERS = ("state_dict_backbone", "state_dict", "model")
WRAPPERS = ("module.", "_orig_mod.")
TORCH_SUFFIXES = (".pt", ".pth")
# Absent from weights that were written before torch 0.4.1 or converted; torch then starts it at 0.
OPTIONAL = ".num_batches_tracked"


def load_backbone_weights(net: nn.Module, path: Path | str) -> None:
    """Fill `net` (plain, unwrapped) with the weights in the file at `path`.

    Raises:
        CheckpointError: no such file, not readable as tensors, or any name or shape does not fit.
    """
    path = Path(path)
    state = _without_wrappers(_find_state_dict(_read(path), path))
    problems = _problems(net.state_dict(), state)
    if problems:
        raise CheckpointError(f"{path} does not fit this backbone: {problems}{_guess(net, state)}")
    net.load_state_dict(state, strict=False)  # strict but for OPTIONAL: checked above


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"no backbone weights at {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # heads need backbones, and not this

            return load_file(path, device="cpu")
        if path.suffix in TORCH_SUFFIXES:
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no torch file, or holds Python objects besides tensors, which are never "
            "executed; save the state_dict alone, best as .safetensors"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # both readers raise whatever a damaged file leads them to
        reason = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
        raise CheckpointError(
            f"cannot read backbone weights from {path} ({reason}); is it whole? get it again"
        ) from error
    raise CheckpointError(
        f"cannot read backbone weights from {path}: expected .safetensors, "
        f"{' or '.join(TORCH_SUFFIXES)}, got {path.suffix or 'no suffix'!r}"
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


def _without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    result = dict(state)
    while prefix := next((p for p in WRAPPERS if all(k.startswith(p) for k in result)), None):
        result = {name.removeprefix(prefix): value for name, value in result.items()}
    return result


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """One clause per kind of misfit, with counts and the first few names; empty when all fits."""
    missing = [k for k in expected if k not in found and not k.endswith(OPTIONAL)]
    unknown = [k for k in found if k not in expected]
    reshaped = [k for k in expected if k in found and expected[k].shape != found[k].shape]
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

"""Whether a step runs on Triton kernels, on C++ kernels or on plain torch, and why."""

import os
import shutil
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from torch import Tensor

from manyface.base.errors import ConfigError, to_install
from manyface.kernels.noise import Noise

SWITCH = "MANYFACE_KERNELS"
# tl.dot of bfloat16 factors.
_NEEDED_CAPABILITY = (8, 0)
_DTYPES = (torch.float32, torch.bfloat16)


class Kernels(Protocol):
    """What the modules `gpu` and `cpu` both have."""

    def numerators(
        self, queries: Tensor, rows: Tensor, inverse: Tensor, own: Tensor, shift: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of a chunk of classes, and their sums."""

    def update_rows(
        self,
        rows: Tensor,
        velocity: Tensor | None,
        gradient: Tensor,
        ids: Tensor,
        *,
        factor: Tensor,
        lr: float,
        momentum: float,
        weight_decay: float,
        noise: Noise | None,
    ) -> None:
        """One step of SGD of some rows of a table, in place; `gradient` is tangent."""


@dataclass(frozen=True)
class Choice:
    """What was chosen; `str` is a line to print, such as `torch (no C++ compiler)`."""

    language: Literal["triton", "c++", "torch"]
    reason: str

    def __str__(self) -> str:
        return f"{self.language} ({self.reason})"

    def kernels(self) -> Kernels | None:
        """The module; None if plain torch was chosen."""
        if self.language == "triton":
            from manyface.kernels import gpu

            return gpu
        if self.language == "c++":
            from manyface.kernels import cpu

            return cpu
        return None


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> Choice:
    """For rows of `dtype` on `device`; MANYFACE_KERNELS=torch in the environment means neither.

    Raises:
        ConfigError: MANYFACE_KERNELS is something else.
    """
    if _is_switched_off():
        return Choice("torch", f"{SWITCH}=torch")
    if dtype not in _DTYPES:
        return Choice("torch", f"{dtype} rows".removeprefix("torch."))
    if device.type == "cpu":
        return _on_a_cpu()
    return _on_a_gpu(device)


def _is_switched_off() -> bool:
    wish = os.environ.get(SWITCH, "") or "auto"
    if wish not in ("auto", "torch"):
        raise ConfigError(f"the environment's {SWITCH} must be auto or torch, got {wish!r}")
    return wish == "torch"


@cache
def _on_a_cpu() -> Choice:
    from manyface.kernels.cpu import library

    found = library()
    return Choice("torch", found) if isinstance(found, str) else Choice("c++", "compiled here")


@cache
def _on_a_gpu(device: torch.device) -> Choice:
    """Asked several times a chunk, and always the same."""
    against = _against_triton(device)
    if against is not None:
        return Choice("torch", against)
    return Choice("triton", torch.cuda.get_device_name(device))


def _against_triton(device: torch.device) -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if device.type != "cuda":
        return f"rows are on {device.type}"
    if not _has_triton():
        return f"triton is not installed: {to_install('triton')}"
    if (found := torch.cuda.get_device_capability(device)) < _NEEDED_CAPABILITY:
        return "compute capability {}.{}, 8.0 is needed".format(*found)
    return None if _has_c_compiler() else "no C compiler (gcc, clang or CC)"


def _has_triton() -> bool:
    return find_spec("triton") is not None


def _has_c_compiler() -> bool:
    """Whether triton, which compiles its driver at its first kernel, finds one: as it looks."""
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return any(map(shutil.which, names))

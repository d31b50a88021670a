"""Whether a step runs on Triton kernels or on plain torch, and why."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch

# tl.dot of bfloat16 factors.
_NEEDED_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Choice:
    """What was chosen; `str` is a line to print, such as `torch (no CUDA device)`."""

    uses_triton: bool
    reason: str

    def __str__(self) -> str:
        return f"{'triton' if self.uses_triton else 'torch'} ({self.reason})"


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> Choice:
    """For rows of `dtype` on `device`."""
    against = _against(device, dtype)
    return Choice(against is None, against or torch.cuda.get_device_name(device))


def _against(device: torch.device, dtype: torch.dtype) -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if device.type != "cuda":
        return f"rows are on {device.type}"
    if not _has_triton():
        return "triton is not installed: pip install 'manyface[triton]'"
    if (found := torch.cuda.get_device_capability(device)) < _NEEDED_CAPABILITY:
        return "compute capability {}.{}, 8.0 is needed".format(*found)
    if dtype not in (torch.float32, torch.bfloat16):
        return f"{dtype} rows".replace("torch.", "")
    return None


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None

"""Where and in which precision a run computes."""

from typing import Literal

import torch

from manyface.base.errors import ConfigError
from manyface.base.threads import usable_cores
from manyface.parallel import local_rank, ranks_here


def choose_device(name: str) -> torch.device:
    """`auto` is a CUDA GPU if there is one, else the CPU; a missing device is an error.

    Of several ranks on a machine each has the GPU of its number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda:") and ranks_here() > 1:
        raise ConfigError(
            f"run.device is {name!r}, but {ranks_here()} ranks are on this machine: set it to "
            "'cuda', and each takes the GPU of its number among CUDA_VISIBLE_DEVICES"
        )
    device = torch.device(f"cuda:{local_rank()}" if name == "cuda" and ranks_here() > 1 else name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"run.device is {name!r}, but torch sees no CUDA GPU; use 'auto' or 'cpu'"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"run.device is {name!r}, but there are {torch.cuda.device_count()} GPUs, from cuda:0"
        )
    return device


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of the backbone's matrix products; None for full precision.

    `auto` is bf16 where the device has bf16 arithmetic: CUDA GPUs of compute capability 8.0 and
    later, CPUs with avx512_bf16 or amx_bf16 (where a step of our nets took 0.5 to 0.85 of the time:
    docs/log.md); fp32 elsewhere. A run's own config says which it was.
    """
    chosen = auto_precision(device) if precision == "auto" else precision
    return torch.bfloat16 if chosen == "bf16" else None


def auto_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """What `run.precision = "auto"` means on a device."""
    return "bf16" if has_fast_bf16(device) else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def threads_here() -> int:
    """CPU threads of this process, of several on the machine: its share of the cores; else 0."""
    return max(1, usable_cores() // ranks_here()) if ranks_here() > 1 else 0


def describe_device(device: torch.device) -> str:
    """The device in words, for result.json."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"cpu, {count} thread{'s' if count > 1 else ''}"

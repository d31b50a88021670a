"""The kernels that this machine can run: Triton's (interpreted without a GPU) and C++."""

from dataclasses import dataclass

import pytest
import torch

from manyface.kernels import Choice, Kernels, choose

LANGUAGES = ("triton", "c++")


@dataclass(frozen=True)
class Language:
    """Kernels, and the device that they are for."""

    choice: Choice
    kernels: Kernels
    device: torch.device


def language_or_skip(name: str) -> Language:
    """Skips the test, with a reason, where they cannot run."""
    device = torch.device("cuda" if name == "triton" and torch.cuda.is_available() else "cpu")
    if name == "triton":
        pytest.importorskip("triton", reason="triton is not installed")
    elif (here := choose(device)).language != "c++":
        pytest.skip(here.reason)
    choice = Choice(name, "asked for by a test")  # type: ignore[arg-type]
    kernels = choice.kernels()
    assert kernels is not None
    return Language(choice, kernels, device)

"""First values of a net: every parameter from its own named stream, so nothing global is touched.

A parameter's first value depends on (seed, its name, its shape) only: not on the order in which
layers are built, on the device, or on what else the program drew before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from manyface.base.random import torch_generator

Draw = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class FirstValues:
    """How a family of nets draws its weights. Biases start at 0, norms at the identity."""

    conv: Draw
    linear: Draw
    bare: Draw | None = None  # parameters of the net itself: position embedding, mask token


def normal(std: float) -> Draw:
    """N(0, std^2)."""
    return lambda tensor, generator: nn.init.normal_(tensor, std=std, generator=generator)


def truncated_normal(std: float) -> Draw:
    """N(0, std^2) cut at +-2, as timm and insightface's ViT draw."""
    return lambda tensor, generator: nn.init.trunc_normal_(tensor, std=std, generator=generator)


def fan_in_uniform(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """torch's default for linear and convolution layers: U(+-1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(tensor[0].numel())
    return nn.init.uniform_(tensor, -bound, bound, generator=generator)


def fan_out_normal(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """He et al. 2015 on the outputs, gain sqrt(2)."""
    return nn.init.kaiming_normal_(tensor, mode="fan_out", nonlinearity="relu", generator=generator)


@torch.no_grad()
def initialise(net: nn.Module, rules: FirstValues, *, seed: int) -> None:
    """Draw all parameters and reset all buffers of `net` (on the CPU) in place."""
    for path, module in net.named_modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm | nn.PReLU):
            module.reset_parameters()
            continue
        for name, parameter in module.named_parameters(recurse=False):
            draw = _rule_for(module, name, rules)
            draw(parameter, torch_generator(seed, "backbone", f"{path}.{name}"))


def _rule_for(module: nn.Module, name: str, rules: FirstValues) -> Draw:
    if isinstance(module, nn.Conv2d | nn.Linear):
        if name == "bias":
            return lambda tensor, _: nn.init.zeros_(tensor)
        return rules.conv if isinstance(module, nn.Conv2d) else rules.linear
    if rules.bare is None:
        raise TypeError(f"no first value is defined for {type(module).__name__}.{name}")
    return rules.bare

"""Small nets for CPUs: residual nets whose cost sits at low resolution, for 64x64 or 112x112 faces.

What is like iResNet: 3x3 convolutions, batch norm, PReLU, and the end (dropout - linear - batch
norm with weight 1 on the flattened map; no pooling, place matters in an aligned face). What
differs, each for speed on few cores: the stem and the first convolution of a stage stride, where
iResNet convolves at full resolution first, and a block has two batch norms instead of three.
The last batch norm of a block starts at weight 0, so that the net starts as a shallow one (Goyal et
al. 2017), which matters when there are minutes to train, not days.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from torch import Tensor, nn

from manyface.backbones.base import Backbone, check_share, final_batch_norm
from manyface.backbones.initialise import FirstValues, fan_in_uniform, fan_out_normal
from manyface.base.errors import ConfigError

MAX_STAGES = 3
Activation = Callable[[int], nn.Module]
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {"prelu": nn.PReLU, "relu": lambda width: nn.ReLU()}
)


class SmallNet(Backbone):
    """Stem at S/2, then one to three stages at S/4, S/8, S/16.

    A stage is a strided convolution to `widths[i]` channels and `depths[i]` residual blocks, so the
    net has 1 + sum(1 + 2 depth) convolutions. `activation` is "prelu" or "relu" (the backward pass
    of PReLU is 15 % of a training step of `small` on one core).
    """

    first_values = FirstValues(conv=fan_out_normal, linear=fan_in_uniform)

    def __init__(
        self,
        *,
        stem_width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        activation: str = "prelu",
        embedding_size: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        self.activation_checkpointing = activation_checkpointing
        if len(widths) != len(depths) or not 1 <= len(widths) <= MAX_STAGES:
            raise ConfigError(
                f"a small net has 1 to {MAX_STAGES} stages, each with a width and a depth, "
                f"got widths {list(widths)} and depths {list(depths)}"
            )
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"backbone.activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        act = ACTIVATIONS[activation]
        self.stem = _conv_unit(3, stem_width, act)
        inputs = (stem_width, *widths[:-1])
        self.stages = nn.Sequential()
        for num_in, width, depth in zip(inputs, widths, depths, strict=True):
            self.stages.append(_stage(num_in, width, depth, act))
        self.dropout = nn.Dropout(check_share("dropout", dropout))
        num_features = widths[-1] * (image_size >> (1 + len(widths))) ** 2
        self.fc = nn.Linear(num_features, embedding_size, bias=False)
        self.features = final_batch_norm(embedding_size)

    def initialise_rest(self) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.bn2.weight)

    def trunk(self, images: Tensor) -> Tensor:
        x: Tensor = self.stem(images)  # [B, stem_width, S/2, S/2]
        units = [unit for stage in self.stages.children() for unit in stage.children()]
        return self.through(units, x)  # [B, widths[-1], S/2^(1+stages), same]

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.features(self.fc(self.dropout(features.flatten(1))))
        return embeddings


class Block(nn.Module):
    """conv - bn - activation - conv - bn, plus the input, then activation."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = activation(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = activation(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        total: Tensor = self.act2(self.bn2(self.conv2(out)) + x)
        return total


def _stage(num_in: int, num_out: int, depth: int, activation: Activation) -> nn.Sequential:
    blocks = (Block(num_out, activation) for _ in range(depth))
    return nn.Sequential(_conv_unit(num_in, num_out, activation), *blocks)


def _conv_unit(num_in: int, num_out: int, activation: Activation) -> nn.Sequential:
    """3x3 convolution of stride 2 - batch norm - activation."""
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(num_out),
        activation(num_out),
    )

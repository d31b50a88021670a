"""MobileFaceNet (Chen et al. 2018), in the wider form that insightface publishes as mbf, mbf_large.

Inverted residual blocks (1x1 expand, 3x3 depthwise, 1x1 project without activation), PReLU, and a
global *depthwise* convolution in place of average pooling: the centre of a face weighs more than
its corners. `scale` widens the maps between blocks (2 = mbf, 4 = mbf_large) but not the depthwise
widths, as published. Parameter names, shapes and numerics are those of arcface_torch.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from manyface.backbones.base import SIZE_STEP, Backbone, check_share
from manyface.backbones.initialise import FirstValues, fan_out_normal

END_WIDTH = 512


class MobileFaceNet(Backbone):
    """`blocks`: residual blocks at S/2, S/4, S/8 and S/16 (1 at S/2 means one grouped convolution).

    Like the published code, everything from `conv_sep` on runs in fp32.
    """

    first_values = FirstValues(conv=fan_out_normal, linear=fan_out_normal)

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (1, 4, 6, 2),
        scale: int = 2,
        embedding_size: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        self.activation_checkpointing = activation_checkpointing
        narrow, wide = 64 * scale, 128 * scale
        self.layers = nn.ModuleList(
            [
                ConvUnit(3, narrow, kernel=3, stride=2),
                _entry(narrow, blocks[0]),
                Bottleneck(narrow, narrow, inner=128, stride=2),
                ResidualStage(narrow, blocks[1], inner=128),
                Bottleneck(narrow, wide, inner=256, stride=2),
                ResidualStage(wide, blocks[2], inner=256),
                Bottleneck(wide, wide, inner=512, stride=2),
                ResidualStage(wide, blocks[3], inner=256),
            ]
        )
        self.conv_sep = ConvUnit(wide, END_WIDTH)
        self.features = GlobalDepthwise(image_size // SIZE_STEP, embedding_size, dropout=dropout)

    def trunk(self, images: Tensor) -> Tensor:
        blocks = [
            block
            for layer in self.layers
            for block in (layer.layers if isinstance(layer, ResidualStage) else (layer,))
        ]
        return self.through(blocks, images)  # [B, 128 scale, S/16, S/16]

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.features(self.conv_sep(features))
        return embeddings


class ConvUnit(nn.Module):
    """Convolution - batch norm - PReLU (not where `activation` is False), same-size padding."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(
                num_in,
                num_out,
                kernel_size=kernel,
                stride=stride,
                padding=kernel // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(num_out),
        )
        if activation:
            self.layers.append(nn.PReLU(num_out))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Bottleneck(nn.Module):
    """1x1 to `inner` channels, 3x3 depthwise, 1x1 to `num_out` without activation."""

    def __init__(
        self, num_in: int, num_out: int, *, inner: int, stride: int = 1, residual: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvUnit(num_in, inner),
            ConvUnit(inner, inner, kernel=3, stride=stride, groups=inner),
            ConvUnit(inner, num_out, activation=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class ResidualStage(nn.Module):
    """`depth` residual bottlenecks of one width."""

    def __init__(self, width: int, depth: int, *, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(Bottleneck(width, width, inner=inner, residual=True) for _ in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class GlobalDepthwise(nn.Module):
    """A depthwise convolution as large as the map, linear, batch norm: [B, 512, k, k] -> [B, D].

    `dropout` (none is published) acts before the linear layer and has no parameters.
    """

    def __init__(self, map_size: int, embedding_size: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(check_share("dropout", dropout))
        pool = nn.Conv2d(END_WIDTH, END_WIDTH, kernel_size=map_size, groups=END_WIDTH, bias=False)
        unit = ConvUnit(END_WIDTH, END_WIDTH, groups=END_WIDTH, activation=False)
        unit.layers[0] = pool
        self.layers = nn.Sequential(
            unit,
            nn.Flatten(),
            nn.Linear(END_WIDTH, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        pool, flatten, linear, norm = self.layers
        embeddings: Tensor = norm(linear(self.dropout(flatten(pool(x)))))
        return embeddings


def _entry(width: int, depth: int) -> nn.Module:
    """The layer at S/2: one grouped 3x3 convolution, or `depth` residual bottlenecks."""
    if depth == 1:
        return ConvUnit(width, width, kernel=3, groups=64)
    return ResidualStage(width, depth, inner=128)

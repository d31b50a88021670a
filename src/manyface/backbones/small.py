"""Small nets for CPUs: residual nets whose cost sits at low resolution, for 64x64 or 112x112 faces.

What is like iResNet: 3x3 convolutions, batch norm, PReLU, and the end (dropout - linear - batch
norm with weight 1 on the flattened map; no pooling, place matters in an aligned face). What
differs, each for speed on few cores: the stem and the first convolution of a stage stride, where
iResNet convolves at full resolution first, and a block has two batch norms instead of three.
The last batch norm of a block starts at weight 0, so that the net starts as a shallow one (Goyal et
al. 2017), which matters when there are minutes to train, not days.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from manyface.backbones.base import SIZE_STEP, Backbone, check_share, final_batch_norm, run_block
from manyface.backbones.initialise import FirstValues, fan_in_uniform, fan_out_normal
from manyface.base.errors import ConfigError

NUM_STAGES = 3


class SmallNet(Backbone):
    """Stem at S/2, then three stages at S/4, S/8, S/16.

    A stage is a strided convolution to `widths[i]` channels and `depths[i]` residual blocks, so the
    net has 1 + sum(1 + 2 depth) convolutions.
    """

    first_values = FirstValues(conv=fan_out_normal, linear=fan_in_uniform)

    def __init__(
        self,
        *,
        stem_width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        embedding_size: int = 512,
        image_size: int = 64,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        if len(widths) != NUM_STAGES or len(depths) != NUM_STAGES:
            raise ConfigError(
                f"a small net has {NUM_STAGES} stages: give {NUM_STAGES} widths and depths, "
                f"got {list(widths)} and {list(depths)}"
            )
        self.activation_checkpointing = activation_checkpointing
        self.stem = _conv_unit(3, stem_width, stride=2)
        inputs = (stem_width, *widths[:-1])
        self.stages = nn.Sequential()
        for num_in, width, depth in zip(inputs, widths, depths, strict=True):
            self.stages.append(_stage(num_in, width, depth))
        self.dropout = nn.Dropout(check_share("dropout", dropout))
        num_features = widths[-1] * (image_size // SIZE_STEP) ** 2
        self.fc = nn.Linear(num_features, embedding_size, bias=False)
        self.features = final_batch_norm(embedding_size)

    def initialise_rest(self) -> None:
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.bn2.weight)

    def trunk(self, images: Tensor) -> Tensor:
        x: Tensor = self.stem(images)  # [B, stem_width, S/2, S/2]
        recompute = self.activation_checkpointing and self.training
        for stage in self.stages.children():
            for unit in stage.children():
                x = run_block(unit, x, recompute=recompute)
        return x  # [B, widths[-1], S/16, S/16]

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.features(self.fc(self.dropout(features.flatten(1))))
        return embeddings


class Block(nn.Module):
    """conv - bn - PReLU - conv - bn, plus the input, then PReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu1 = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu2 = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.prelu1(self.bn1(self.conv1(x)))
        total: Tensor = self.prelu2(self.bn2(self.conv2(out)) + x)
        return total


def _stage(num_in: int, num_out: int, depth: int) -> nn.Sequential:
    return nn.Sequential(
        _conv_unit(num_in, num_out, stride=2), *(Block(num_out) for _ in range(depth))
    )


def _conv_unit(num_in: int, num_out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(num_out),
        nn.PReLU(num_out),
    )

"""iResNet-18 to -200: the residual nets of ArcFace (Deng et al. 2019, section 3) for 112x112 faces.

Differences from ImageNet's ResNet: a 3x3 stem of stride 1, blocks that begin with a batch norm and
have no activation after the sum ("improved residual unit", Han et al. 2017), PReLU, stride in the
block's second convolution, and an end of batch norm - dropout - linear - batch norm on the
flattened 7x7 map instead of pooling. Parameter names, shapes and numerics are those of
insightface's arcface_torch, so its published backbones load with strict=True.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from manyface.backbones.base import SIZE_STEP, Backbone, check_share, final_batch_norm
from manyface.backbones.initialise import FirstValues, fan_in_uniform, normal

WIDTHS = (64, 128, 256, 512)


class IResNet(Backbone):
    """Four stages of `depths` blocks; each stage halves the map, the first at full resolution.

    `dropout` is the share of the flattened features that is zeroed before the last linear layer.
    """

    first_values = FirstValues(conv=normal(0.1), linear=fan_in_uniform)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embedding_size: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        self.activation_checkpointing = activation_checkpointing
        self.conv1 = nn.Conv2d(3, WIDTHS[0], kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU(WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(num_in, width, depth)
            for num_in, width, depth in zip(inputs, WIDTHS, depths, strict=True)
        )
        self.bn2 = nn.BatchNorm2d(WIDTHS[-1])
        self.dropout = nn.Dropout(check_share("dropout", dropout))
        self.fc = nn.Linear(WIDTHS[-1] * (image_size // SIZE_STEP) ** 2, embedding_size)
        self.features = final_batch_norm(embedding_size)

    def trunk(self, images: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(images)))  # [B, 64, S, S]
        blocks = [*self.layer1, *self.layer2, *self.layer3, *self.layer4]
        normed: Tensor = self.bn2(self.through(blocks, x))  # [B, 512, S/16, S/16]
        return normed

    def project(self, features: Tensor) -> Tensor:
        flat = features.flatten(1)  # [B, 512 (S/16)^2], channel-major whatever the memory layout
        embeddings: Tensor = self.features(self.fc(self.dropout(flat)))
        return embeddings


class Block(nn.Module):
    """bn - conv - bn - PReLU - conv(stride) - bn, plus the input or its 1x1 projection."""

    def __init__(self, num_in: int, num_out: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(num_in)
        self.conv1 = nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)
        self.prelu = nn.PReLU(num_out)
        self.conv2 = nn.Conv2d(
            num_out, num_out, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn3 = nn.BatchNorm2d(num_out)
        self.downsample = _projection(num_in, num_out, stride) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x))
        out = self.conv2(self.prelu(self.bn2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        total: Tensor = self.bn3(out) + shortcut
        return total


def _projection(num_in: int, num_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(num_out),
    )


def _stage(num_in: int, num_out: int, depth: int) -> nn.Sequential:
    first = Block(num_in, num_out, stride=2)
    return nn.Sequential(first, *(Block(num_out, num_out, stride=1) for _ in range(depth - 1)))

"""IR nets as AdaFace and CVLface publish them: iResNet with two ends of its own.

The blocks are those of iresnet.py. What differs: where a block keeps its number of channels the
shortcut has no weights (the first block, which strides, takes every other pixel), and the last
batch norm has no weight and bias. With `squeeze` each block weighs its channels by what it sees of
the whole map (squeeze-and-excitation, Hu et al. 2018). Parameter names, shapes and fp32 numerics
are those of the published files, but for what holds the net in them: `model.` in AdaFace's, `net.`
in CVLface's. Their forward also divides by the norm; here embeddings keep theirs.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from manyface.backbones.base import SIZE_STEP, Backbone, check_share
from manyface.backbones.initialise import FirstValues, fan_out_normal

WIDTHS = (64, 128, 256, 512)
_REDUCTION = 16


class IRNet(Backbone):
    """Four stages of `depths` blocks; each halves the map, the first at full resolution.

    `dropout` is the share of the flattened features that is zeroed before the last linear layer (in
    the published trainings 0.4).
    """

    first_values = FirstValues(conv=fan_out_normal, linear=fan_out_normal)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        squeeze: bool = False,
        embedding_size: int = 512,
        image_size: int = 112,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        self.activation_checkpointing = activation_checkpointing
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.PReLU(WIDTHS[0]),
        )
        self.body = nn.Sequential()
        num_in = WIDTHS[0]
        for width, depth in zip(WIDTHS, depths, strict=True):
            for index in range(depth):
                stride = 2 if index == 0 else 1
                self.body.append(Block(num_in, width, stride=stride, squeeze=squeeze))
                num_in = width
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(num_in),
            nn.Dropout(check_share("dropout", dropout)),
            nn.Flatten(),
            nn.Linear(num_in * (image_size // SIZE_STEP) ** 2, embedding_size),
            nn.BatchNorm1d(embedding_size, affine=False),
        )

    def trunk(self, images: Tensor) -> Tensor:
        x: Tensor = self.input_layer(images)  # [B, 64, S, S]
        return self.through(self.body, x)  # [B, 512, S/16, S/16]

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.output_layer(features)
        return embeddings


class Block(nn.Module):
    """bn - conv - bn - PReLU - conv(stride) - bn, plus the input or its 1x1 projection."""

    def __init__(self, num_in: int, num_out: int, *, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.shortcut_layer = _shortcut(num_in, num_out, stride)
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(num_in),
            nn.Conv2d(num_in, num_out, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
            nn.PReLU(num_out),
            nn.Conv2d(num_out, num_out, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(num_out),
        )
        if squeeze:
            self.res_layer.add_module("se_block", ChannelWeights(num_out))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return total


class ChannelWeights(nn.Module):
    """Squeeze-and-excitation: each channel times a share in (0, 1) made of all channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // _REDUCTION, kernel_size=1, bias=False)
        self.fc2 = nn.Conv2d(width // _REDUCTION, width, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)  # [B, width, 1, 1]
        weighted: Tensor = x * self.fc2(self.fc1(means).relu()).sigmoid()
        return weighted


def _shortcut(num_in: int, num_out: int, stride: int) -> nn.Module:
    if num_in == num_out:  # as a pooling window of one pixel
        return nn.MaxPool2d(kernel_size=1, stride=stride)
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(num_out),
    )

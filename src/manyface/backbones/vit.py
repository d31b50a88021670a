"""Vision transformers for 112x112 faces as insightface trains them with Partial FC (WebFace42M).

ViT (Dosovitskiy et al. 2021) with three changes: patches of 9x9 pixels (12x12 tokens; the last 4
rows and columns are not read), ReLU6 in the MLP, and no class token: all tokens are flattened into
linear - batch norm - linear - batch norm. In training, `mask_ratio` of the tokens are left out of
the transformer and come back as one learned token before the end, as in masked autoencoders (He et
al. 2022): cheaper, and a regulariser. Names, shapes and fp32 numerics are arcface_torch's.

Dropout, dropped paths and token masks draw from torch's default generator, because activation
checkpointing and torch.compile replay only that one. Whoever trains seeds it per step from a named
stream (then the draw is a function of the step, like all others).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyface.backbones.base import Backbone, check_share, full_precision
from manyface.backbones.initialise import FirstValues, fan_in_uniform, truncated_normal

PATCH_SIZE = 9
NUM_ATTENTION_HEADS = 8
MLP_RATIO = 4


class VisionTransformer(Backbone):
    """`depth` blocks of width `dim`; path dropping grows linearly to `drop_path` at the last.

    `patch_size`, `num_heads` and `mlp_ratio` are for the nets that CVLface publishes (8; 8 and 5,
    or 16 and 3).
    """

    first_values = FirstValues(
        conv=fan_in_uniform, linear=truncated_normal(0.02), bare=truncated_normal(0.02)
    )
    channels_last = False

    def __init__(
        self,
        *,
        dim: int,
        depth: int,
        embedding_size: int = 512,
        image_size: int = 112,
        patch_size: int = PATCH_SIZE,
        num_heads: int = NUM_ATTENTION_HEADS,
        mlp_ratio: int = MLP_RATIO,
        mask_ratio: float = 0.0,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding_size=embedding_size, image_size=image_size)
        self.activation_checkpointing = activation_checkpointing
        num_tokens = (image_size // patch_size) ** 2
        self.mask_ratio = check_share("mask_ratio", mask_ratio)
        self.patch_embed = PatchEmbedding(dim, patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, dim))
        # Kept where nothing is masked, because published weights hold it; without a gradient then,
        # because data-parallel training refuses parameters that take no part.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=mask_ratio > 0)
        self.pos_drop = nn.Dropout(check_share("dropout", dropout))
        check_share("drop_path", drop_path)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout, drop_path=rate
            )
            for rate in rates
        )
        self.norm = nn.LayerNorm(dim)
        self.feature = nn.Sequential(
            nn.Linear(dim * num_tokens, dim, bias=False),
            nn.BatchNorm1d(dim, eps=2e-5),
            nn.Linear(dim, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=2e-5),
        )

    def trunk(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.pos_drop(self.patch_embed(images) + self.pos_embed)  # [B, N, dim]
        places = self._draw_places(tokens) if self.training and self.mask_ratio > 0 else None
        if places is not None:
            tokens = _take_kept(tokens, places, num_kept=self._num_kept(tokens.shape[1]))
        tokens = self.through(self.blocks, tokens)
        with full_precision(tokens):
            tokens = self.norm(tokens.float())
        if places is not None:
            tokens = _put_back(tokens, places, self.mask_token)
        return tokens.flatten(1)  # [B, N dim]

    def project(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.feature(features)
        return embeddings

    def _num_kept(self, num_tokens: int) -> int:
        return int(num_tokens * (1 - self.mask_ratio))

    def _draw_places(self, tokens: Tensor) -> Tensor:
        """A random order of the tokens of each image, int64 [B, N]; the first `_num_kept` stay."""
        return torch.rand(tokens.shape[:2], device=tokens.device).argsort(dim=1)


def _take_kept(tokens: Tensor, places: Tensor, *, num_kept: int) -> Tensor:
    """Tokens [B, N, dim] at the first `num_kept` places of each image: [B, num_kept, dim]."""
    index = places[:, :num_kept, None].expand(-1, -1, tokens.shape[2])
    return tokens.gather(1, index)


def _put_back(kept: Tensor, places: Tensor, mask_token: Tensor) -> Tensor:
    """Inverse of `_take_kept`: kept tokens at their places, `mask_token` elsewhere: [B, N, dim]."""
    batch, num_kept, dim = kept.shape
    filler = mask_token.expand(batch, places.shape[1] - num_kept, dim)
    shuffled = torch.cat([kept, filler], dim=1)
    return shuffled.gather(1, places.argsort(dim=1)[:, :, None].expand(-1, -1, dim))


class PatchEmbedding(nn.Module):
    """Square patches side by side to vectors: [B, 3, S, S] -> [B, (S // size)^2, dim], by rows."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=size, stride=size)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each added to the stream through stochastic depth."""

    def __init__(
        self, dim: int, *, num_heads: int, mlp_ratio: int, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads=num_heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ratio=mlp_ratio, dropout=dropout)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._thin(self.attn(self.norm1(x)))
        return x + self._thin(self.mlp(self.norm2(x)))

    def _thin(self, branch: Tensor) -> Tensor:
        """Stochastic depth (Huang et al. 2016): the branch of a sample is dropped, or scaled up."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        return branch * branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class Attention(nn.Module):
    """Multi-head self-attention over tokens [B, N, dim].

    arcface_torch computes the scores in fp32 by hand because fp16 overflowed. Every kernel behind
    `scaled_dot_product_attention` accumulates scores and softmax in fp32, so no island is needed.
    """

    def __init__(self, dim: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, num_tokens, dim = x.shape
        heads = self.num_heads
        split = self.qkv(x).view(batch, num_tokens, 3, heads, dim // heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each [B, heads, N, dim / heads]
        mixed = F.scaled_dot_product_attention(query, key, value)
        joined = mixed.transpose(1, 2).reshape(batch, num_tokens, dim)
        out: Tensor = self.proj_drop(self.proj(joined))
        return out


class MLP(nn.Module):
    """Two linear layers with ReLU6 between."""

    def __init__(self, dim: int, *, ratio: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.act = nn.ReLU6()
        self.fc2 = nn.Linear(ratio * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
        return out

"""From images to embeddings for evaluation: flip-sum, unit length, each distinct image once.

The field's convention (arcface_torch `verification.py`): embedding of the image plus embedding of
its mirror image, then L2-normalised. Compare by cosine.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manyface.base.errors import NonFiniteError
from manyface.base.progress import Progress, no_progress
from manyface.data.source import ImageSource
from manyface.data.transforms import normalise
from manyface.parallel import ALONE, Ranks, Shard, all_or_none

EVALUATED, LENGTH = "embeddings of an evaluation", "length of embeddings"
EMBEDDED = "images of an evaluation"

# uint8 [B, S, S, 3] RGB -> float32 [B, D] of unit length, on the CPU
EmbedFunction = Callable[[Tensor], Tensor]


def make_embed_function(
    backbone: nn.Module,
    device: torch.device | str | None = None,
    *,
    flip: bool = True,
    autocast: torch.dtype | None = None,
    unit: bool = True,
    prepare: Callable[[Tensor], Tensor] = normalise,
) -> EmbedFunction:
    """An embedding function of `backbone` (float32 [B, 3, S, S] -> [B, D]) as it is at each call.

    Args:
        device: where the backbone lives; None means where its first parameter is.
        flip: add the embedding of the mirror image before normalising to unit length.
        autocast: run the backbone under autocast of this dtype; the sum stays in fp32.
        unit: scale to unit length; else the length, which some protocols use, stays.
        prepare: uint8 [B, S, S, 3] RGB -> what the backbone takes, where that is something else.

    The backbone is put in evaluation mode during a call; each module's mode is restored after it.
    """

    def embed(images: Tensor) -> Tensor:
        where = _device_of(backbone) if device is None else torch.device(device)
        pixels = prepare(images.to(where, non_blocking=True))  # [B, 3, S, S]
        with (
            evaluation_mode(backbone),
            torch.inference_mode(),
            torch.autocast(where.type, dtype=autocast, enabled=autocast is not None),
        ):
            total: Tensor = backbone(pixels).float()  # [B, D]
            if flip:
                total = total + backbone(pixels.flip(-1)).float()
        # clone: tensors born under inference_mode may not enter a user's own autograd graph.
        if unit:
            total = nn.functional.normalize(total, dim=1)
        return total.cpu().clone()

    return embed


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each submodule has its own mode again, so that
    a part that was frozen in evaluation mode during training stays so."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def embed_source(
    embed: EmbedFunction,
    source: ImageSource,
    indices: npt.NDArray[np.int64],
    *,
    batch_size: int = 128,
    ranks: Ranks = ALONE,
    progress: Progress = no_progress,
) -> npt.NDArray[np.float32]:
    """Embeddings [N, D] of the images `indices` [N] of `source`; each distinct image is loaded and
    embedded once, the next batch being loaded while this one is embedded.

    Of several ranks each embeds its share: an all-gather of 4 D bytes for each image of it.
    """
    distinct, inverse = np.unique(indices, return_inverse=True)
    mine = Shard.of(len(distinct), rank=ranks.rank, size=ranks.size)
    with all_or_none(ranks, EMBEDDED):  # an image that one rank cannot read is said by all
        found = _embed_all(embed, source, distinct[mine.start : mine.stop], batch_size, progress)
    if not ranks.is_alone:
        found = _of_all_ranks(found, len(distinct), ranks)
    check_finite(found, distinct, source.name)
    return found[inverse.reshape(-1)]


def _of_all_ranks(
    mine: npt.NDArray[np.float32], total: int, ranks: Ranks
) -> npt.NDArray[np.float32]:
    counts = [len(Shard.of(total, rank=rank, size=ranks.size)) for rank in range(ranks.size)]
    (dim,) = ranks.agree(mine.shape[1], name=LENGTH)  # a rank without images does not know it
    values = torch.from_numpy(mine.reshape(-1, dim)).to(ranks.talks_on)
    everyone: npt.NDArray[np.float32] = ranks.gather(values, counts, EVALUATED).wait().cpu().numpy()
    return everyone


def _embed_all(
    embed: EmbedFunction,
    source: ImageSource,
    indices: npt.NDArray[np.int64],
    batch_size: int,
    progress: Progress,
) -> npt.NDArray[np.float32]:
    """Embeddings [n, D] of images, [0, 0] of none."""
    batches = [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]
    parts: list[npt.NDArray[np.float32]] = []
    for number, found in enumerate(embedded_batches(embed, source, batches), start=1):
        parts.append(found)
        progress(min(len(indices), number * batch_size), len(indices))
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)


def embedded_batches(
    embed: EmbedFunction, source: ImageSource, batches: Sequence[npt.NDArray[np.int64]]
) -> Iterator[npt.NDArray[np.float32]]:
    """Embeddings [b, D] of each batch of images of `source`; the next one is loaded meanwhile."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation-load") as loader:
        waiting = loader.submit(source.load, batches[0]) if batches else None
        for following in [*batches[1:], None]:
            if waiting is None:
                return
            images = waiting.result()
            waiting = None if following is None else loader.submit(source.load, following)
            yield embed(images).numpy().astype(np.float32, copy=False)


def check_finite(found: npt.NDArray[np.float32], indices: npt.NDArray[np.int64], name: str) -> None:
    """NonFiniteError if an embedding of `found` [n, D], of the images `indices`, is not finite."""
    rows = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(rows):
        raise NonFiniteError(
            f"the embedding of image {indices[rows[0]]} of {name} is not finite "
            f"({len(rows)} of {len(found)} images): the network's weights or activations overflow"
        )


def _device_of(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device

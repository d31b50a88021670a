"""What a set of any protocol is: images to embed, and a judgement of their features.

Features are embeddings of any length (image plus mirror image), so that protocols which use the
length have it; those that compare by cosine scale them first.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from manyface.base.progress import Progress, no_progress
from manyface.base.threads import cpu_threads, usable_cores
from manyface.data.source import ImageSource, Int64Array
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.embed import EmbedFunction, embed_source
from manyface.evaluate.kept_features import Kept, embed_kept
from manyface.evaluate.result import Mistakes, ProtocolResult
from manyface.parallel import ALONE, Ranks, all_or_none

# A display for the part of the work that is named so.
Show = Callable[[str], Progress]

JUDGED = "judgement of a set"
NUM_MISTAKES = 12  # that are shown


class Part(NamedTuple):
    """Images of one source: `indices` int64 [n]."""

    source: ImageSource
    indices: Int64Array

    @classmethod
    def whole(cls, source: ImageSource) -> "Part":
        """All images of `source`."""
        return cls(source, np.arange(len(source), dtype=np.int64))

    @property
    def labels(self) -> Int64Array:
        """Of the images, int64 [n]."""
        return self.source.labels(self.indices)


@dataclass(frozen=True)
class Judgement:
    """What one model got on one set: a result for each protocol, and its worst mistakes."""

    results: Sequence[ProtocolResult]
    mistakes: Mistakes | None = None


class JudgedSet(ABC):
    """Attributes:
    name: of the set, as results call it.
    """

    name: str

    @property
    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The images to embed."""

    @abstractmethod
    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        """Of the features of each part, float32 [n, D]."""


def evaluate_set(
    judged: JudgedSet,
    embed: EmbedFunction,
    *,
    batch_size: int = 128,
    ranks: Ranks = ALONE,
    show: Show = lambda name: no_progress,
    kept: Kept | None = None,
) -> Judgement:
    """Embed the images of a set, each once, and judge.

    Of several ranks each embeds its share; the first judges, with all cores of its machine, and the
    others wait for it and get an empty judgement.

    Args:
        embed: uint8 [B, S, S, 3] -> float32 [B, D] of any length.
        kept: keeps features in files until they are judged; None: in memory alone.
    """
    features = []
    for number, part in enumerate(judged.parts):
        progress = show("embedding")
        if kept is None:
            found = embed_source(
                embed, *part, batch_size=batch_size, ranks=ranks, progress=progress
            )
        else:
            place = Kept(kept.folder / str(number), kept.job)
            found = embed_kept(
                embed, *part, place, batch_size=batch_size, ranks=ranks, progress=progress
            )
        features.append(found)
    judgement = Judgement([])
    # The first of several ranks works alone here, on every core.
    threads = 0 if ranks.is_alone else usable_cores()
    with all_or_none(ranks, JUDGED), cpu_threads(threads):
        if ranks.rank == 0:
            judgement = judged.judge(features, show)
    return judgement

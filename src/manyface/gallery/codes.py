"""Sign codes: an embedding as the signs of its projections, to look through millions quickly.

Of two unit vectors at the angle t, a random direction tells the signs apart with probability t / pi
(Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002), so the number of
different bits estimates the cosine: with B bits to within pi sqrt(p (1 - p) / B), p = t / pi. That
is too coarse to decide and fine enough to choose a few hundred of a million, whose true cosines
are then computed. Codes are plain bits that this file defines: an index holds no other program's
serialised objects, of which a stranger's may be made to crash the program that reads them.

The directions are rows of random orthogonal matrices, which estimate better than independent ones.
Before the projection the mean of the embeddings is taken away: nets that were trained on few people
put all faces into one part of the sphere, where most signs would be alike.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.random import numpy_generator

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

NUM_BITS = 1024
_ROWS_AT_A_TIME = 1 << 14
_MOST_FOR_MEAN = 1 << 18


@dataclass(frozen=True)
class Coder:
    """How embeddings become codes.

    Attributes:
        center: float32 [D], what is taken away.
        directions: float32 [D, B].
    """

    center: Float32Array
    directions: Float32Array

    def encode(self, embeddings: npt.NDArray[np.floating]) -> UInt8Array:
        """Codes uint8 [N, B / 8] of embeddings [N, D]."""
        if len(embeddings) == 1:  # by one thread, as in search.py
            projected = np.einsum("nd,db->nb", embeddings - self.center, self.directions)
            return np.packbits(projected > 0, axis=1)
        codes = np.empty((len(embeddings), self.directions.shape[1] // 8), np.uint8)
        directions = torch.from_numpy(self.directions)
        for start in range(0, len(embeddings), _ROWS_AT_A_TIME):
            some = embeddings[start : start + _ROWS_AT_A_TIME].astype(np.float32) - self.center
            signs = (torch.from_numpy(some) @ directions > 0).numpy()
            codes[start : start + len(some)] = np.packbits(signs, axis=1)
        return codes


def make_coder(embeddings: npt.NDArray[np.floating], *, num_bits: int = NUM_BITS) -> Coder:
    """A coder for embeddings [N, D] of unit length, and others like them."""
    step = max(1, len(embeddings) // _MOST_FOR_MEAN)
    center = embeddings[::step].mean(axis=0, dtype=np.float64).astype(np.float32)
    return Coder(center, _directions(embeddings.shape[1], num_bits))


def _directions(size: int, num_bits: int) -> Float32Array:
    """float32 [D, B], D columns at a time orthogonal to each other."""
    rng = numpy_generator(0, f"sign codes {size} {num_bits}")
    blocks = [
        np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(-(-num_bits // size))
    ]
    return np.concatenate(blocks, axis=1)[:, :num_bits].astype(np.float32)

"""Finding pictures that are nearly the same, among very many.

The fingerprint of a picture has 128 bits: whether each cell of an 8 x 9 grid of grey means is
brighter than its left neighbour, and the same for a 9 x 8 grid and the upper one. Aligned faces are
alike, so 64 bits are too few: among LFW's 13,233 a 64-bit dHash finds 348 pairs within 3 bits, most
of them of strangers; 128 bits find 20 within 5 bits, all true. Of copies saved again as JPEG of
quality 75, 50 or 30, scaled to 96 pixels and back, or made 10 % brighter, 98 to 100 % lie within 5.

Candidates are then compared as 16 x 16 thumbnails by their correlation: on LFW true pairs have
0.990 and more (two shots of one scene), all others within 12 bits less than 0.984.

Fingerprints within 5 bits agree in at least 2 of 7 parts, so sorting by each of the 21 pairs of
parts brings them together. Within a run of equal parts each is compared with the next 64.
"""

from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from manyface.data.decode import UInt8Array
from manyface.data.records.store import Int64Array, UInt64Array

MAX_BITS = 5
MIN_CORRELATION = 0.985
MAX_PAIRS = 10_000_000
_WINDOW = 64
_SHRUNK = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_PARTS = [(0, 19), (19, 18), (37, 18), (55, 18), (73, 18), (91, 18), (109, 19)]  # start, bits

Float32Array = npt.NDArray[np.float32]


def fingerprint(pixels: UInt8Array) -> UInt64Array:
    """uint8 [H, W, 3] -> uint64 [2]."""
    grey = _grey(pixels)
    across, down = _means(grey, 8, 9), _means(grey, 9, 8)
    right, lower = across[:, 1:] > across[:, :-1], down[1:] > down[:-1]  # [8, 8] each
    return np.packbits(np.concatenate([right.ravel(), lower.ravel()])).view(np.uint64)


def thumbnail(pixels: UInt8Array) -> Float32Array:
    """uint8 [H, W, 3] -> float32 [256], mean 0, length 1."""
    small = _means(_grey(pixels), 16, 16).ravel()
    small = small - small.mean(dtype=np.float32)
    length = max(float(np.linalg.norm(small)), 1e-6)
    thumb: Float32Array = small / np.float32(length)
    return thumb


def near_pairs(prints: UInt64Array, *, max_pairs: int = MAX_PAIRS) -> Int64Array:
    """Pairs i < j of [N, 2] fingerprints that differ in MAX_BITS or less: int64 [n, 2], distinct.

    Stops at about `max_pairs`.
    """
    found = [np.zeros((0, 2), np.int64)]
    total = 0
    for first, second in combinations(_PARTS, 2):
        keys = _part(prints, *first) << np.uint64(second[1]) | _part(prints, *second)
        order = np.argsort(keys)
        keys = keys[order]
        for distance in range(1, min(_WINDOW, len(keys) - 1) + 1):
            places = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(places) or total > max_pairs:
                break
            pairs = np.stack([order[places], order[places + distance]], axis=1)
            bits = np.bitwise_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]]).sum(axis=1)
            found.append(np.sort(pairs[bits <= MAX_BITS], axis=1))
            total += len(found[-1])
    return np.unique(np.concatenate(found), axis=0)


def _part(prints: UInt64Array, start: int, bits: int) -> UInt64Array:
    """Bits [start, start + bits) of [N, 2] fingerprints, uint64 [N]."""
    low, high = prints[:, 0], prints[:, 1]
    if start >= 64:
        shifted = high >> np.uint64(start - 64)
    elif start + bits > 64:
        shifted = low >> np.uint64(start) | high << np.uint64(64 - start)
    else:
        shifted = low >> np.uint64(start)
    part: UInt64Array = shifted & np.uint64((1 << bits) - 1)
    return part


def _grey(pixels: UInt8Array) -> Float32Array:
    step = max(1, min(pixels.shape[:2]) // _SHRUNK)  # of a photo every so many pixels are enough
    return (pixels[::step, ::step].astype(np.float32) @ _LUMA).astype(np.float32, copy=False)


def _means(grey: Float32Array, rows: int, columns: int) -> Float32Array:
    """Means over a grid of cells, [rows, columns]."""
    height, width = grey.shape
    means = _averaging(rows, height) @ grey @ _averaging(columns, width).T
    return means.astype(np.float32, copy=False)


@lru_cache(maxsize=256)
def _averaging(parts: int, length: int) -> Float32Array:
    """[parts, length]: the mean of each of `parts` equal stretches of [0, length)."""
    edges = np.linspace(0, length, parts + 1)
    pixels = np.arange(length)
    low, high = edges[:-1, None], edges[1:, None]
    shares = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None)
    averaging: Float32Array = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return averaging

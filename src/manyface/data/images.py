"""Encoded images of any reader as an ImageSource: whole batches decoded by threads into one tensor.

Each thread takes a share of the batch. Images that already have the wanted size are decoded
straight into their place; others of one size are collected and shrunk together by torch's
antialiased bilinear resize on uint8 (from 112 to 64 pixels 30 microseconds an image in batches, 150
one by one; Pillow's takes 190). Images that are not square are stretched to the square, so nothing
is cut off.

A broken image is replaced by the next one of the same person (cyclic, in file order), always the
same one, so the run stays reproducible; a person without any usable image is shown as plain grey.
Images to verify on are never replaced: a same pair could become one of an image with itself.
Small sets stay in memory once decoded, since decoding again each epoch takes cores from training.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from manyface.base.errors import DataError
from manyface.base.threads import usable_cores, use_one_core
from manyface.data.decode import MAX_PIXELS, UInt8Array, UnreadableImageError, decode_image
from manyface.data.faults import BadImages
from manyface.data.records import Records, labels_of
from manyface.data.records.base import person_of
from manyface.data.records.naming import number_at_end
from manyface.data.source import check_records
from manyface.parallel import ranks_here

log = logging.getLogger(__name__)

Int64Array = npt.NDArray[np.int64]
DEFAULT_CACHE_BYTES = 256 << 20
_PENDING_BYTES = 16 << 20  # pixels a thread collects before it resizes them
_GREY = 127


class DecodedImages:
    """An ImageSource over encoded records.

    Args:
        records: from `open_records`, perhaps through `select_records`.
        image_size: side S of the images handed out, pixels.
        threads: that decode one batch together; 0 = half of the cores, the rest is for training.
        max_bad_share: share of unusable images that is borne (see faults.py).
        substitute: replace unusable images; False, for pairs, makes each of them a DataError.
        cache: bytes; a set whose decoded pixels fit is kept in memory. 0 keeps nothing.
        max_pixels: larger images count as unusable, unseen.
        warn: gets one line for each of the first unusable images.
    """

    def __init__(
        self,
        records: Records,
        *,
        image_size: int,
        threads: int = 0,
        max_bad_share: float = 0.01,
        substitute: bool = True,
        cache: int = DEFAULT_CACHE_BYTES,
        max_pixels: int = MAX_PIXELS,
        warn: Callable[[str], None] = log.warning,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be >= 1, got {image_size}")
        self.records = records
        self.name = records.path.name
        self.image_size = image_size
        self.threads = threads or max(1, usable_cores() // (2 * ranks_here()))
        self.bad_images = BadImages(
            total=len(records), max_share=max_bad_share, where=str(records.path), warn=warn
        )
        self._substitute = substitute
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(  # its threads begin when the first batch needs them
            self.threads, thread_name_prefix="decode", initializer=use_one_core
        )
        shape = (len(records), image_size, image_size, 3)
        # np.empty reserves addresses only: memory is used as images come in.
        self._cache = np.empty(shape, np.uint8) if np.prod(shape) <= cache else None
        self._is_cached = np.zeros(len(records), dtype=bool)

    @property
    def num_identities(self) -> int:
        return len(self.records.identity_names)

    @property
    def identity_names(self) -> Sequence[str]:
        return self.records.identity_names

    def __len__(self) -> int:
        return len(self.records)

    def labels(self, indices: Int64Array) -> Int64Array:
        """int64 [B] -> int64 [B], in [0, num_identities)."""
        return labels_of(self.records.first_images, indices)

    def images_of(self, identities: Int64Array) -> tuple[Int64Array, Int64Array]:
        """First record and number of images of each identity, int64 [B] each."""
        first = self.records.first_images[identities]
        return first, self.records.first_images[identities + 1] - first

    def from_storage(self, places: Int64Array) -> Int64Array:
        """Records at `places` of the storage, int64 [B] each."""
        return self.records.from_storage(places)

    def will_read(self, indices: Int64Array) -> None:
        """Hint: these records will be asked for soon."""
        missing = indices if self._cache is None else indices[~self._is_cached[indices]]
        if missing.size:
            self.records.will_read(missing)

    def load(self, indices: Int64Array, out: torch.Tensor | None = None) -> torch.Tensor:
        """int64 [B] -> uint8 [B, S, S, 3], RGB, in `out` if given. Safe from many threads."""
        indices = np.asarray(indices, dtype=np.int64)
        check_records(indices, len(self))
        if out is None:
            shape = (len(indices), self.image_size, self.image_size, 3)
            out = torch.empty(shape, dtype=torch.uint8)
        images = out.numpy()  # the same memory
        if self._cache is None:
            self._decode(indices, images)
        else:
            self._load_through(self._cache, indices, images)
        self.bad_images.report()
        return out

    def index_of(self, name: str, number: int) -> int:
        """Record that LFW lists call (name, number): its file name ends in the number."""
        person = self._label_of_name.get(name)
        if person is None:
            raise DataError(
                f"no person {name!r} in {self.records.path}; is the list for this data?"
            )
        first, end = self.records.first_images[person : person + 2].tolist()
        for index in range(first, end):
            if number_at_end(self.records.file_name(index)) == number:
                return index
        raise DataError(
            f"{name!r} has no image number {number} in {self.records.path}, only "
            f"{end - first} images; is the list for this data?"
        )

    @cached_property
    def _label_of_name(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.identity_names)}

    def _load_through(self, cache: UInt8Array, indices: Int64Array, images: UInt8Array) -> None:
        """`images` = cache[indices], decoding what is not there yet."""
        missing = np.unique(indices[~self._is_cached[indices]])
        if missing.size:
            decoded = np.empty((len(missing), *cache.shape[1:]), np.uint8)
            self._decode(missing, decoded)
            cache[missing] = decoded
            # Only now: another thread may be asking for the same images.
            self._is_cached[missing] = True
        np.take(cache, indices, axis=0, out=images, mode="clip")  # "raise" would buffer a copy

    def _decode(self, indices: Int64Array, images: UInt8Array) -> None:
        self.bad_images.tried(len(indices))
        threads = min(self.threads, len(indices))
        if threads <= 1:
            self._decode_share(indices, images)
            return
        # slices of `images` are views: every thread writes its own part of the batch
        shares = [slice(k * len(indices) // threads, (k + 1) * len(indices) // threads)
                  for k in range(threads)]  # fmt: skip
        done = self._pool.map(lambda part: self._decode_share(indices[part], images[part]), shares)
        deque(done, maxlen=0)  # waits, and raises what a thread raised

    def _decode_share(self, indices: Int64Array, images: UInt8Array) -> None:
        """Decode `indices` [b] into `images` [b, S, S, 3], resizing equal sizes together."""
        pending: dict[tuple[int, ...], list[tuple[int, UInt8Array]]] = {}
        pending_bytes = 0
        for place, index in enumerate(indices.tolist()):
            pixels = self._decode_or_replace(index, images[place])
            if pixels is not None:
                pending.setdefault(pixels.shape, []).append((place, pixels))
                pending_bytes += pixels.nbytes
            if pending_bytes > _PENDING_BYTES:
                _resize_all(pending, images)
                pending_bytes = 0
        _resize_all(pending, images)

    def _decode_or_replace(self, index: int, out: UInt8Array) -> UInt8Array | None:
        if index not in self.bad_images:  # the usual case, and the one that has to be quick
            try:
                return self._decode_record(index, out)
            except (UnreadableImageError, OSError) as error:
                self._note(index, error)
        return self._replaced(index, out)

    def _decode_record(self, index: int, out: UInt8Array) -> UInt8Array | None:
        return decode_image(self.records.read(index), out=out, max_pixels=self._max_pixels)

    def _replaced(self, index: int, out: UInt8Array) -> UInt8Array | None:
        """The next image of the same person that can be used, else grey."""
        others = self._others(index)
        for other in others:
            if other not in self.bad_images:
                try:
                    return self._decode_record(other, out)
                except (UnreadableImageError, OSError) as error:
                    self._note(other, error)
        self.bad_images.shown_grey([index, *others])
        out[...] = _GREY
        return None

    def _note(self, index: int, error: Exception) -> None:
        """An image is unusable: count it, or stop where nothing may stand in for it."""
        strerror = error.strerror if isinstance(error, OSError) else None
        where, reason = self.records.describe(index), strerror or str(error)
        if not self._substitute:
            raise DataError(
                f"{where}: {reason}; images of pairs are never replaced by others: replace the "
                "file or take its pairs out of the list"
            )
        self.bad_images.add(index, where, reason)

    def _others(self, index: int) -> list[int]:
        """The other records of the same person, from this one on, cyclic."""
        person = person_of(self.records.first_images, index)
        first, end = self.records.first_images[person : person + 2].tolist()
        return [*range(index + 1, end), *range(first, index)]


def _resize_all(
    pending: dict[tuple[int, ...], list[tuple[int, UInt8Array]]], images: UInt8Array
) -> None:
    """Resize the collected images of each size as one batch into place; empties `pending`."""
    side = images.shape[1]
    for group in pending.values():
        places = [place for place, _ in group]
        stack = torch.from_numpy(np.stack([pixels for _, pixels in group]))  # [b, H, W, 3]
        small = interpolate(
            stack.permute(0, 3, 1, 2), (side, side), mode="bilinear", antialias=True
        )
        images[places] = small.permute(0, 2, 3, 1).numpy()
    pending.clear()

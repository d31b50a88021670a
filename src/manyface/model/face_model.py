"""A trained net as one thing that embeds faces, whatever file it came from.

    model = manyface.load("runs/lfw")
    embeddings = model.embed(["ann.jpg", "bob.jpg"])  # float32 [2, D], of unit length

Two faces are compared by the dot product of their rows; `model.threshold`, where the model has one,
says from which value on they count as one person.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manyface.backbones.recognise import Architecture
from manyface.base.errors import DataError, NonFiniteError
from manyface.base.threads import usable_cores, use_one_core
from manyface.data.align import FindPoints
from manyface.data.detect import Detector, Face, detected, load_detector
from manyface.evaluate import make_embed_function
from manyface.model.fingerprint import fingerprint_of
from manyface.model.images import Photo, Reading, check_several
from manyface.model.preprocessing import Preprocessing
from manyface.model.threshold import Threshold

Embeddings = npt.NDArray[np.float32]


class FaceModel:
    """Embeds aligned faces.

    Args:
        net: float32 [B, 3, S, S] -> [B, D]; stays where it is.
        name: for messages and lists.
        weights: hash of the weights (fingerprint.py).
        fingerprint: of the trained model, where part of feeding it has become part of `net`; None
            makes it of `weights` and `preprocessing`.
        embedding_size: D.
        preprocessing: how the net is fed.
        device: where the net is.
        autocast: dtype in which the net computes; None is as it is.
        threshold: similarity from which two faces are one person.
        architecture: of the net, where it is one of the registry's.
        provenance: where the weights come from.
        license: what may be done with them.

    Attributes:
        fingerprint: the same for models whose embeddings can be compared with each other.
        embed_batch: uint8 [B, S, S, 3] RGB -> float32 [B, D] of unit length, on the CPU.
        features: the same, of the length that the net gives them.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        weights: str,
        fingerprint: str | None = None,
        embedding_size: int,
        preprocessing: Preprocessing,
        device: torch.device,
        autocast: torch.dtype | None = None,
        threshold: Threshold | None = None,
        architecture: Architecture | None = None,
        provenance: Mapping[str, Any] | None = None,
        license: str | None = None,
    ) -> None:
        self.net, self.device, self.weights = net, device, weights
        self.name, self.embedding_size = name, embedding_size
        self.preprocessing, self.threshold = preprocessing, threshold
        self.architecture, self.license = architecture, license
        self.provenance = dict(provenance or {})
        self.fingerprint = fingerprint or fingerprint_of(weights, preprocessing)
        self.embed_batch, self.features = (
            make_embed_function(
                net,
                device,
                flip=preprocessing.flip,
                autocast=autocast,
                prepare=preprocessing.apply,
                unit=unit,
            )
            for unit in (True, False)
        )

    @property
    def image_size(self) -> int:
        """S: aligned faces have so many pixels a side."""
        return self.preprocessing.image_size

    def __repr__(self) -> str:
        size, dim = self.image_size, self.embedding_size
        return f"FaceModel({self.name!r}, {size}x{size} pixels -> {dim} values, {self.device})"

    def embed(
        self,
        images: Sequence[Photo],
        *,
        batch_size: int = 128,
        resize: bool = False,
        align: bool = False,
        detector: str | Detector = "uniface",
        face: Face = "largest",
    ) -> Embeddings:
        """Embeddings of images, float32 [N, D] of unit length, in their order.

        Args:
            images: of each its pixels (uint8 [H, W, 3] RGB), its path, or its encoded bytes.
            batch_size: images that are in memory and go through the net together.
            resize: bring aligned faces of another size to that of the model.
            align: find a face on each photo and align it.
            detector: that finds it: a name or a function, see `manyface.data.detect`.
            face: which one, of several.

        Raises:
            DataError: an image cannot be read, has another size, or shows no face.
            NonFiniteError: an embedding is not finite.
        """
        check_several(images)
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        reading = self.reading(resize=resize, align=align, detector=detector, face=face)
        found = [np.zeros((0, self.embedding_size), np.float32)]
        for first, faces in _batches(images, reading, batch_size):
            found.append(_checked(self.embed_batch(faces), first))
        return np.concatenate(found)

    def reading(
        self,
        *,
        resize: bool = False,
        align: bool = False,
        detector: str | Detector = "uniface",
        face: Face = "largest",
    ) -> Reading:
        """What `embed` makes of each image, for who wants to do it image by image."""
        find: FindPoints | None = None
        if align:
            function = load_detector(detector) if isinstance(detector, str) else detector
            find = detected(function, face=face)
        return Reading(self.image_size, resize=resize, find=find)


def _batches(
    images: Sequence[Photo], reading: Reading, batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """(number of its first image, faces uint8 [B, S, S, 3]); the next batch is read meanwhile."""

    def read(number: int) -> npt.NDArray[np.uint8]:
        photo = images[number]
        is_file = isinstance(photo, str | Path)
        return reading.face(photo, name=str(photo) if is_file else f"image {number}")

    starts = range(0, len(images), batch_size)
    with ThreadPoolExecutor(
        max(1, usable_cores() // 2), thread_name_prefix="embed-read", initializer=use_one_core
    ) as pool:
        waiting = pool.map(read, range(min(batch_size, len(images))))
        for start in starts:
            faces = np.stack(list(waiting))
            after = start + batch_size
            waiting = pool.map(read, range(after, min(after + batch_size, len(images))))
            yield start, torch.from_numpy(faces)


def _checked(found: Tensor, first: int) -> Embeddings:
    embeddings: Embeddings = found.numpy().astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"the embedding of image {first + bad[0]} is not finite: the model's weights are "
            "damaged, or overflow in its precision"
        )
    return embeddings

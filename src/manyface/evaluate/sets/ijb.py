"""IJB-B and IJB-C as they were published: photos and landmarks, templates, pairs, galleries.

    DIR/meta/         the lists (ijb_files.py)
    DIR/loose_crop/   the photos

Each photo is aligned by its five points. A photo and its mirror image are one feature: variants
N1D1F1 (insightface's figure) and N0D1F1 (CVLface's), which are both given.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from manyface.base.errors import DataError
from manyface.base.threads import usable_cores, use_one_core
from manyface.data.align import align, template
from manyface.data.decode import UInt8Array, UnreadableImageError, decode_whole
from manyface.data.records.files import read_whole
from manyface.data.records.store import LARGEST_IMAGE
from manyface.data.source import Int64Array
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.ijb_files import (
    Faces,
    find_meta,
    read_faces,
    read_galleries,
    read_template_pairs,
)
from manyface.evaluate.ijb_identify import identify_templates
from manyface.evaluate.ijb_verify import FARS, verify_templates
from manyface.evaluate.result import ProtocolResult
from manyface.evaluate.sets.base import JudgedSet, Judgement, Part, Show
from manyface.evaluate.templates import Templates, Variant, pool_templates

PHOTOS = "loose_crop"


class AlignedPhotos:
    """An ImageSource of photos that are aligned as they are read; labels are templates."""

    def __init__(self, folder: Path, faces: Faces, *, image_size: int, name: str) -> None:
        self.name, self.image_size = name, image_size
        self._folder, self._faces = folder, faces
        ids, labels = np.unique(faces.templates, return_inverse=True)
        self._labels = labels.reshape(-1).astype(np.int64)
        self.identity_names = [str(template) for template in ids.tolist()]
        self.num_identities = len(ids)
        self._pool = ThreadPoolExecutor(usable_cores(), "align", initializer=use_one_core)

    def __len__(self) -> int:
        return len(self._faces)

    def labels(self, indices: Int64Array) -> Int64Array:
        return self._labels[indices]

    def load(self, indices: Int64Array, out: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 [B, S, S, 3], RGB. DataError if a photo cannot be used."""
        if out is None:
            shape = (len(indices), self.image_size, self.image_size, 3)
            out = torch.empty(shape, dtype=torch.uint8)
        for place, face in enumerate(self._pool.map(self._face, indices.tolist())):
            out[place] = torch.from_numpy(face)
        return out

    def from_storage(self, places: Int64Array) -> Int64Array:
        return places

    def will_read(self, indices: Int64Array) -> None:
        return

    def _face(self, index: int) -> UInt8Array:
        path = self._folder / self._faces.names[index]
        try:
            photo = decode_whole(read_whole(path, limit=LARGEST_IMAGE))
            return align(photo, self._faces.points[index], size=self.image_size)
        except (OSError, UnreadableImageError, DataError) as error:
            raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


class JudgedIjb(JudgedSet):
    """1:1 and, where its lists are there, 1:N of the set in `folder`.

    Args:
        flip: features are those of photo and mirror image together (F1).
        fars: at which TAR of 1:1 is given.

    Raises:
        DataError: photos are missing, or a list is missing or damaged.
    """

    def __init__(
        self, folder: Path, *, image_size: int, flip: bool = True, fars: Sequence[float] = FARS
    ) -> None:
        _, self.name = find_meta(folder)
        self._flip, self._fars = flip, fars
        photos = folder / PHOTOS
        if not photos.is_dir():
            raise DataError(f"{folder} has no {PHOTOS}/ with the photos of {self.name}")
        template(image_size)  # refuses sizes that no face is aligned to
        self._faces = read_faces(folder)
        self._pairs, self._lists = read_template_pairs(folder), read_galleries(folder)
        self._source = AlignedPhotos(photos, self._faces, image_size=image_size, name=self.name)
        self._source.load(np.zeros(1, np.int64))  # the photos are there

    @property
    def parts(self) -> Sequence[Part]:
        return [Part.whole(self._source)]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        lists = self._lists
        found: list[ProtocolResult] = []
        for keep_norm in (True, False):
            templates = self._pooled(features[0], keep_norm)
            variant = f"N{keep_norm:d}D1F{self._flip:d}"
            verified = verify_templates(
                templates,
                self._pairs,
                name=self.name,
                variant=variant,
                fars=self._fars,
                progress=show(f"comparing templates ({variant})"),
            )
            found.append(replace(verified, name=f"{self.name} 1:1 {variant}"))
            if lists is not None:
                searched = identify_templates(templates, *lists, name=self.name, variant=variant)
                found.append(replace(searched, name=f"{self.name} 1:N {variant}"))
        if lists is None:
            found[0].notes.append("no 1:N: the lists of galleries and probes are not in meta/")
        return Judgement(found)

    def _pooled(self, features: Float32Array, keep_norm: bool) -> Templates:
        return pool_templates(
            features,
            self._faces.templates,
            self._faces.media,
            detector_scores=self._faces.detector_scores,
            variant=Variant(keep_norm=keep_norm, flip=False),  # features hold the mirror images
        )

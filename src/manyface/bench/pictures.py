"""JPEG records in memory: real decoding, without a data set."""

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from manyface.base.errors import DataError
from manyface.data.synthetic import SyntheticFaces
from manyface.data.synthetic.source import MAX_SIZE, MIN_SIZE, SyntheticNames

DISTINCT = 64
_QUALITY, _SUBSAMPLING = 90, "420"  # 112 x 112 pixels take 3 KB, about what LFW's files do


class JpegRecords:
    """Records of any number of people over a few distinct pictures, synthetic faces.

    Args:
        num_identities: people.
        images_per_identity: of each.
        image_size: side in pixels; a size that is not rendered is taken from the nearest.
    """

    path = Path("JPEG records in memory")

    def __init__(self, num_identities: int, images_per_identity: int, *, image_size: int) -> None:
        self.identity_names = SyntheticNames(0, num_identities, 0)
        self.first_images = np.arange(num_identities + 1) * images_per_identity
        self._image_size = min(max(image_size, MIN_SIZE), MAX_SIZE)

    def __len__(self) -> int:
        return int(self.first_images[-1])

    @cached_property
    def _encoded(self) -> list[bytes]:
        faces = SyntheticFaces(
            num_identities=DISTINCT, images_per_identity=1, image_size=self._image_size
        )
        pixels = faces.load(np.arange(DISTINCT)).numpy()
        return [simplejpeg.encode_jpeg(each, _QUALITY, "RGB", _SUBSAMPLING) for each in pixels]

    def read(self, index: int) -> bytes:
        return self._encoded[index % DISTINCT]

    def file_name(self, index: int) -> str:
        return f"{index}.jpg"

    def describe(self, index: int) -> str:
        return f"picture {index} in memory"

    def read_text(self, name: str) -> str:
        raise DataError(f"{self.path} have no {name}")

    def from_storage(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return places

    def will_read(self, indices: npt.NDArray[np.int64]) -> None:
        """They are in memory."""

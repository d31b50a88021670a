"""Pictures inside the page: images as JPEG data URIs, so that the page needs no other file."""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

_QUALITY = 88


def data_uri(image: npt.NDArray[Any]) -> str:
    """uint8 [S, S, 3] RGB -> data:image/jpeg;base64,..."""
    pixels = np.ascontiguousarray(image, dtype=np.uint8)
    encoded = simplejpeg.encode_jpeg(pixels, _QUALITY, "RGB", "444")
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode("ascii")

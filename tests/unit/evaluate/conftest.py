"""A source whose images are colour codes of (identity, instance), small enough to check by eye."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator


class CodedSource:
    """Identity i has `counts[i]` images, 8x8: a random pattern of its own plus noise."""

    def __init__(self, counts: Sequence[int], *, name: str = "coded", noise: float = 20) -> None:
        self.name = name
        self.image_size = 8
        self.num_identities = len(counts)
        self.identity_names = [f"person {i}" for i in range(len(counts))]
        # Interleaved on purpose: the images of one person need not be neighbours.
        label_of = np.repeat(np.arange(len(counts)), counts)
        self._labels = label_of[numpy_generator(0, "coded").permutation(len(label_of))]
        rng = numpy_generator(1, "coded")
        patterns = rng.uniform(0, 255, size=(len(counts), 8, 8, 3))
        noisy = patterns[self._labels] + rng.normal(scale=noise, size=(len(label_of), 8, 8, 3))
        self._images = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8))
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self._labels)

    def labels(self, indices: np.ndarray) -> np.ndarray:
        return self._labels[indices].astype(np.int64)

    def index_of(self, name: str, number: int) -> int:
        if name not in self.identity_names:
            raise DataError(f"no person {name!r} in {self.name}")
        of_person = np.flatnonzero(self._labels == self.identity_names.index(name))
        if number > len(of_person):
            raise DataError(f"{name!r} has no image number {number}")
        return int(of_person[number - 1])

    def load(self, indices: np.ndarray) -> torch.Tensor:
        self.loaded.extend(int(i) for i in indices)
        return self._images[torch.from_numpy(np.asarray(indices))]


@pytest.fixture
def source() -> CodedSource:
    """60 people; every fifth has one image only."""
    return CodedSource([1 if i % 5 == 0 else 2 + i % 4 for i in range(60)])


def embed_pixels(images: torch.Tensor) -> torch.Tensor:
    """An embedding function that recognises the patterns: centred pixels, unit length."""
    pixels = images.flatten(1).float() - 127.5
    return torch.nn.functional.normalize(pixels, dim=1)


def real_file(name: str) -> Path:
    """A file of shared/data, which lies beside the checkout or above it; else the test is left."""
    for above in Path(__file__).parents:
        if (found := above / "shared/data" / name).is_file():
            return found
    pytest.skip(f"no real files here (shared/data/{name})")

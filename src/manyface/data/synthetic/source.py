"""Synthetic faces as an image source: any number of people, nothing stored.

Picture j of person i is a pure function of (seed, i, j): alone, in any batch, on any machine, at
any time, it has the same pixels. `first_identity` moves the range of people, so that sets with
disjoint ranges share nobody. How many pictures a person has (counts.py) is no part of any of them.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError
from manyface.base.random import stream_seed
from manyface.data.synthetic.counts import Counts, EqualCounts, ListedCounts, long_tailed_counts
from manyface.data.synthetic.difficulty import Difficulty, find_difficulty
from manyface.data.synthetic.draws import draw
from manyface.data.synthetic.people import People
from manyface.data.synthetic.pictures import Pictures
from manyface.data.synthetic.render import render
from manyface.data.synthetic.scene import build_scene
from manyface.data.synthetic.textures import Textures

MIN_SIZE, MAX_SIZE = 32, 224
MAX_IDENTITIES = 2**32
MAX_IMAGES_PER_IDENTITY = 2**22  # counters: 32 bits of person, 22 of picture, 9 of column
MAX_LONG_TAIL = 1e6
MAX_LONG_TAILED = 2**28  # people whose counts differ: an index of 2 GiB
_PIXELS_PER_CHUNK = 96 * 64 * 64  # fewer pay more for calls, more do not fit the cache


class SyntheticNames(Sequence[str]):
    """Names of synthetic people, made when asked for."""

    def __init__(self, first: int, count: int, seed: int) -> None:
        self._first, self._count, self._seed = first, count, seed

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"identity {index} of {self._count}")
        return f"synthetic-{self._seed}-{self._first + index % self._count}"


class SyntheticFaces:
    """Faces rendered on demand; implements `ImageSource`.

    Args:
        num_identities: people in this source.
        images_per_identity: pictures of each, or with `long_tail` their mean. Records go person by
            person.
        image_size: side of the square crop in pixels, 32 to 224.
        seed: another seed is another world of people.
        first_identity: where in the world this source's people begin.
        difficulty: a named version, or a record of one's own.
        long_tail: 0 gives equal counts; above, up to 1e6, few people have many pictures and many
            have one (counts.py), and an index takes 8 bytes a person.
    """

    def __init__(
        self,
        *,
        num_identities: int,
        images_per_identity: int,
        image_size: int = 64,
        seed: int = 0,
        first_identity: int = 0,
        difficulty: str | Difficulty = "faces-1",
        long_tail: float = 0.0,
    ) -> None:
        _check("image_size", image_size, MIN_SIZE, MAX_SIZE)
        _check("first_identity", first_identity, 0, MAX_IDENTITIES - 1)
        _check("num_identities", num_identities, 1, MAX_IDENTITIES - first_identity)
        _check("images_per_identity", images_per_identity, 1, MAX_IMAGES_PER_IDENTITY)
        if isinstance(difficulty, str):
            difficulty = find_difficulty(difficulty)
        self.image_size = image_size
        self.num_identities = num_identities
        self.images_per_identity = images_per_identity
        self.difficulty = difficulty
        self.name = f"synthetic {difficulty.name}, people {first_identity} to "
        self.name += f"{first_identity + num_identities - 1} of seed {seed}"
        self.identity_names: Sequence[str] = SyntheticNames(first_identity, num_identities, seed)
        self._first_identity = first_identity
        self.long_tail = long_tail
        tail_seed = stream_seed(seed, "synthetic", "long tail", first_identity)
        self._counts = _counts(num_identities, images_per_identity, long_tail, seed=tail_seed)
        self._people_seed = stream_seed(seed, "synthetic", "people")
        self._picture_seed = stream_seed(seed, "synthetic", "pictures")
        self._textures = Textures(image_size)

    def __len__(self) -> int:
        return self._counts.total

    def labels(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which person each record shows, int64 `[B]`."""
        return self._counts.locate(self._checked(indices))[0]

    def images_of(
        self, identities: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First record and number of images of each identity, int64 `[B]` each."""
        return self._counts.images_of(identities)

    def from_storage(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """As they are numbered: nothing is stored."""
        return places

    def will_read(self, indices: npt.NDArray[np.int64]) -> None:
        """Nothing is read."""

    def load(self, indices: npt.NDArray[np.int64], out: torch.Tensor | None = None) -> torch.Tensor:
        """The pictures of these records, uint8 `[B, S, S, 3]`, in `out` if it is given."""
        indices = self._checked(indices)
        size = self.image_size
        shape = (len(indices), size, size, 3)
        result = torch.empty(shape, dtype=torch.uint8) if out is None else out
        step = max(4, _PIXELS_PER_CHUNK // size**2)
        for start in range(0, len(indices), step):
            part = self._render(indices[start : start + step])
            result[start : start + step] = part
        return result

    def parameters(self, indices: npt.NDArray[np.int64]) -> tuple[People, Pictures]:
        """Who and under which conditions: all that is drawn for these records."""
        identity, picture = self._counts.locate(self._checked(indices))
        identity = identity + self._first_identity
        scales = vars(self.difficulty)
        people = draw(People, seed=self._people_seed, counters=identity, scales=scales)
        counters = identity * MAX_IMAGES_PER_IDENTITY + picture
        pictures = draw(Pictures, seed=self._picture_seed, counters=counters, scales=scales)
        return people, pictures

    def _render(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        people, pictures = self.parameters(indices)
        scene = build_scene(people, pictures, difficulty=self.difficulty)
        return render(scene, self._textures, image_size=self.image_size)

    def _checked(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            worst = indices.min() if indices.min() < 0 else indices.max()
            raise DataError(f"synthetic faces: expected a record in [0, {len(self)}), got {worst}")
        return indices


def _counts(num_identities: int, mean: int, long_tail: float, *, seed: int) -> Counts:
    _check("long_tail", long_tail, 0, MAX_LONG_TAIL)
    if long_tail == 0:
        return EqualCounts(num_identities, mean)
    if mean < 2:
        raise DataError(
            f"synthetic faces: long_tail is {long_tail:g}, but images_per_identity is {mean}, so "
            "all have one; set images_per_identity to 2 or more, or long_tail to 0"
        )
    _check("num_identities with a long_tail", num_identities, 1, MAX_LONG_TAILED)
    counts = long_tailed_counts(num_identities, mean=mean, long_tail=long_tail, seed=seed)
    _check("the most images of one identity", int(counts.max()), 1, MAX_IMAGES_PER_IDENTITY)
    return ListedCounts(counts)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise DataError(f"synthetic faces: {name} must be within [{low}, {high}], got {value}")

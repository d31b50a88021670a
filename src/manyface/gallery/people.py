"""Who is enrolled: embeddings with the person, the image and the enrolment that each came from.

A person has as many embeddings as images were enrolled. Nothing is averaged: what was enrolled can
be shown, replaced and taken out again image by image. Embeddings are kept in float16 (1 KiB at
D = 512); a cosine computed from them is within 0.0005 of that of the float32 ones.

Every function gives new people and leaves those it was given as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, NonFiniteError
from manyface.data.records.table import StringTable

FloatArray = npt.NDArray[np.floating]
Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
BoolArray = npt.NDArray[np.bool_]

_ROWS_AT_A_TIME = 1 << 16


@dataclass(frozen=True, eq=False)
class Faces:
    """Embeddings of images whose people are known.

    Attributes:
        embeddings: [N, D], any float dtype, of any length.
        labels: int64 [N], person of each, in [0, len(names)).
        names: of the people.
        images: name of each image, [N].
    """

    embeddings: FloatArray
    labels: Int64Array
    names: Sequence[str]
    images: Sequence[str]


@dataclass(frozen=True, eq=False)
class People:
    """Attributes:
    embeddings: float16 [N, D] of unit length.
    labels: int64 [N], person of each, in [0, len(names)).
    versions: uint32 [N], the enrolment that each came with.
    names: of the people, distinct; each has an embedding.
    images: name of each image, [N].
    """

    embeddings: Float16Array
    labels: Int64Array
    versions: UInt32Array
    names: Sequence[str]
    images: Sequence[str]

    def __len__(self) -> int:
        """Embeddings."""
        return len(self.embeddings)


def nobody(embedding_size: int) -> People:
    """No people yet."""
    return People(
        embeddings=np.zeros((0, embedding_size), np.float16),
        labels=np.zeros(0, np.int64),
        versions=np.zeros(0, np.uint32),
        names=(),
        images=StringTable(),
    )


def with_faces(
    people: People, faces: Faces, *, version: int, replace_people: bool = False
) -> tuple[People, BoolArray]:
    """`people` and the new `faces`; which of the old embeddings stayed, bool [N].

    An image that a person has already, by its name, is replaced by the new one of that name.

    Args:
        version: of this enrolment.
        replace_people: people who are among the new faces lose all that they had.

    Raises:
        DataError: there are no faces, or embeddings of another size.
        NonFiniteError: an embedding is not finite or is zero.
    """
    fresh = unit_embeddings(faces, embedding_size=people.embeddings.shape[1])
    stay = ~_replaced(people, faces, replace_people)
    kept = chosen(people, stay)
    place = {name: label for label, name in enumerate(kept.names)}
    names = list(kept.names)
    for name in (faces.names[label] for label in np.unique(faces.labels).tolist()):
        if place.setdefault(name, len(names)) == len(names):
            names.append(name)
    numbers = np.array([place.get(name, -1) for name in faces.names], np.int64)
    return People(
        embeddings=np.concatenate([kept.embeddings, fresh]),
        labels=np.concatenate([kept.labels, numbers[faces.labels]]),
        versions=np.concatenate([kept.versions, np.full(len(fresh), version, np.uint32)]),
        names=names,
        images=StringTable(chain(kept.images, faces.images)),
    ), stay


def without(people: People, names: Sequence[str]) -> tuple[People, BoolArray]:
    """`people` less those called `names`; which embeddings stayed, bool [N].

    Raises:
        DataError: nobody is called so.
    """
    place = {name: label for label, name in enumerate(people.names)}
    if unknown := [name for name in names if name not in place]:
        raise DataError(
            f"nobody here is called {unknown[0]!r} ({len(place)} people are enrolled); "
            "names are compared letter by letter"
        )
    stay = ~np.isin(people.labels, [place[name] for name in names])
    return chosen(people, stay), stay


def chosen(people: People, stay: BoolArray) -> People:
    """Those embeddings that `stay`, bool [N]; people who have none left are gone."""
    if stay.all():
        return people
    left, labels = np.unique(people.labels[stay], return_inverse=True)
    return replace(
        people,
        embeddings=people.embeddings[stay],
        labels=labels.reshape(-1),
        versions=people.versions[stay],
        names=[people.names[label] for label in left.tolist()],
        images=StringTable(people.images[row] for row in np.flatnonzero(stay).tolist()),
    )


def unit_embeddings(faces: Faces, *, embedding_size: int) -> Float16Array:
    """The embeddings of `faces` at unit length, float16 [N, D]; errors as of `with_faces`."""
    given = np.asarray(faces.embeddings)
    if not len(given):
        raise DataError("there is no face to enrol")
    if given.ndim != 2 or given.shape[1] != embedding_size:
        raise DataError(
            f"embeddings have shape {list(given.shape)}, the people here have {embedding_size} "
            "values each: they are of another model; enrol into an index of its own"
        )
    out = np.empty(given.shape, np.float16)
    for start in range(0, len(given), _ROWS_AT_A_TIME):
        part = given[start : start + _ROWS_AT_A_TIME].astype(np.float32)
        lengths = np.linalg.norm(part, axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(bad):
            raise NonFiniteError(
                f"the embedding of {faces.images[start + int(bad[0])]} is not finite or zero: "
                "the model's weights or activations overflow"
            )
        out[start : start + len(part)] = part / lengths
    return out


def _replaced(people: People, faces: Faces, replace_people: bool) -> BoolArray:
    """Which of the old embeddings the new faces take the place of, bool [N]."""
    numbers = {faces.names[label]: label for label in np.unique(faces.labels).tolist()}
    theirs = np.array([numbers.get(name, -1) for name in people.names], np.int64)
    label_there = theirs[people.labels]  # int64 [N], -1: not among the new faces
    if replace_people:
        return np.asarray(label_there >= 0)
    shared = set(np.unique(label_there).tolist())
    new = {
        (label, image)
        for label, image in zip(faces.labels.tolist(), faces.images, strict=True)
        if label in shared
    }
    gone = np.zeros(len(people), np.bool_)
    for row in np.flatnonzero(label_there >= 0).tolist():
        gone[row] = (int(label_there[row]), people.images[row]) in new
    return gone

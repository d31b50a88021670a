"""Who is most like a face: exactly, or by sign codes and then exactly.

Small galleries are compared whole. In large ones faiss chooses the `CANDIDATES` embeddings whose
sign codes (codes.py) differ least from that of the face, and the cosines of these are computed: the
score of a match is a true cosine either way, only whether somebody is looked at is by estimate.
`exact` compares with all, however many: what the estimate is measured against.

A person is as like a face as the most like of the person's embeddings.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.errors import DataError, MissingExtraError, NonFiniteError
from manyface.gallery.codes import UInt8Array
from manyface.gallery.index import PeopleIndex
from manyface.gallery.people import Float16Array, Float32Array, Int64Array

CANDIDATES = 1000
_ROWS_AT_A_TIME = 1 << 16
_QUERIES_AT_A_TIME = 256
_LONGEST = 1.01  # cosine of two unit vectors in float16, generously


@dataclass(frozen=True)
class Match:
    """Attributes:
    name: of the person.
    cosine: of the face and the most like embedding of the person.
    image: the name of that one's image.
    """

    name: str
    cosine: float
    image: str


class Search:
    """Looks for faces in the people of `index`.

    Args:
        exact: compare with every embedding.
        candidates: of which the cosine is computed, for one face.

    Raises:
        DataError: nobody is enrolled.
        MissingExtraError: the index is large and faiss is not installed.
    """

    def __init__(
        self, index: PeopleIndex, *, exact: bool = False, candidates: int = CANDIDATES
    ) -> None:
        if not len(index.people):
            raise DataError("nobody is enrolled in the index; add people with manyface enroll")
        self._index, self._candidates = index, candidates
        self._coder = None if exact else index.coder
        self._codes = None if exact or index.codes is None else _binary_index(index.codes)
        # Float16 is turned into float32 once where all are compared for each face.
        is_small = len(index.people) <= _ROWS_AT_A_TIME
        embeddings = index.people.embeddings
        self._embeddings = embeddings.astype(np.float32) if is_small else embeddings

    def people(self, faces: npt.NDArray[np.floating], count: int = 5) -> list[list[Match]]:
        """The `count` most like people of each of `faces` [Q, D], most alike first.

        Raises:
            DataError: the faces are of another embedding size, or the index is not as it should be.
            NonFiniteError: a face is not finite, or zero.
        """
        queries = _checked(faces, self._embeddings.shape[1])
        wanted = min(count, len(self._index.people.names))
        found = []
        for start in range(0, len(queries), _QUERIES_AT_A_TIME):
            some = queries[start : start + _QUERIES_AT_A_TIME]
            rows, cosines = self._nearest(some, max(self._candidates, 4 * count))
            found += [
                self._persons(*each, wanted) for each in zip(some, rows, cosines, strict=True)
            ]
        return found

    def nearest(
        self, faces: npt.NDArray[np.floating], count: int
    ) -> tuple[Int64Array, Float32Array]:
        """The `count` most like embeddings of each of `faces` [Q, D]: rows and cosines [Q, count],
        most alike first, equals in the order of rows; fewer where fewer are enrolled."""
        queries = _checked(faces, self._embeddings.shape[1])
        parts = [
            self._nearest(queries[start : start + _QUERIES_AT_A_TIME], count)
            for start in range(0, max(len(queries), 1), _QUERIES_AT_A_TIME)
        ]
        rows, cosines = zip(*parts, strict=True)
        return np.concatenate(rows)[:, :count], np.concatenate(cosines)[:, :count]

    def _nearest(self, queries: Float32Array, count: int) -> tuple[Int64Array, Float32Array]:
        """At least `count` rows of each query, if there are so many; cosines [Q, n]."""
        count = min(count, len(self._embeddings))
        if self._codes is None or self._coder is None or 2 * count > len(self._embeddings):
            return _plausible(*_most_alike(self._embeddings, queries, count))
        wanted = min(max(count, self._candidates), len(self._embeddings))
        rows = _candidates(self._codes, self._coder.encode(queries), wanted)
        return _plausible(*_sorted_by_cosine(self._embeddings, queries, rows))

    def _persons(
        self, query: Float32Array, rows: Int64Array, cosines: Float32Array, wanted: int
    ) -> list[Match]:
        """The `wanted` first people of `rows`, best first; of more rows where those name fewer."""
        while True:
            _, first = np.unique(self._index.people.labels[rows], return_index=True)
            if len(first) >= wanted or len(rows) == len(self._embeddings):
                return [self._match(rows, cosines, place) for place in np.sort(first)[:wanted]]
            more = self._nearest(query[None], 4 * len(rows))
            rows, cosines = more[0][0], more[1][0]

    def _match(self, rows: Int64Array, cosines: Float32Array, place: int) -> Match:
        people, row = self._index.people, int(rows[place])
        name = people.names[int(people.labels[row])]
        return Match(name, float(cosines[place]), people.images[row])


def _binary_index(codes: UInt8Array) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("faiss", extra="faiss") from error
    found = faiss.IndexBinaryFlat(8 * codes.shape[1])
    found.add(np.ascontiguousarray(codes))  # at once: in parts it would take up to twice the memory
    return found


def _candidates(index: Any, codes: UInt8Array, count: int) -> Int64Array:
    """Rows int64 [Q, count] whose codes differ least from `codes` [Q, B / 8].

    One face by one thread: faiss lets its threads meet every 65,536 codes, and on a machine that
    does something else, too, each meeting waits for a core (1M codes: 80 ms, not 8).
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1 if len(codes) == 1 else before)
    try:
        rows: Int64Array = index.search(codes, count)[1].astype(np.int64, copy=False)
    finally:
        faiss.omp_set_num_threads(before)
    return rows


def _most_alike(
    embeddings: Float16Array | Float32Array, queries: Float32Array, count: int
) -> tuple[Int64Array, Float32Array]:
    """Of all embeddings; int64 and float32 [Q, count]."""
    faces = torch.from_numpy(queries)
    cosines = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(embeddings), _ROWS_AT_A_TIME):
        part = embeddings[start : start + _ROWS_AT_A_TIME].astype(np.float32, copy=False)
        here, place = (faces @ torch.from_numpy(part).T).topk(min(count, len(part)))
        cosines, best = torch.cat([cosines, here], 1).topk(min(count, start + len(part)))
        rows = torch.cat([rows, place + start], 1).gather(1, best)
    return _in_order(rows.numpy(), cosines.numpy())


def _sorted_by_cosine(
    embeddings: Float16Array | Float32Array, queries: Float32Array, rows: Int64Array
) -> tuple[Int64Array, Float32Array]:
    """`rows` [Q, n] by their cosines to `queries` [Q, D].

    Not by BLAS, whose second thread for so little work waits for a core that others use (20 ms).
    """
    cosines = np.empty(rows.shape, np.float32)
    for query, some, out in zip(queries, rows, cosines, strict=True):
        some.sort()  # as they lie in the file
        np.einsum("nd,d->n", embeddings[some].astype(np.float32, copy=False), query, out=out)
    return _in_order(rows, cosines)


def _in_order(rows: Int64Array, cosines: Float32Array) -> tuple[Int64Array, Float32Array]:
    order = np.lexsort((rows, -cosines))  # the last key counts first
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)


def _plausible(rows: Int64Array, cosines: Float32Array) -> tuple[Int64Array, Float32Array]:
    """What was given, if all are cosines: no enrolment makes other embeddings, a forger may."""
    if not (np.abs(cosines) <= _LONGEST).all():  # NaN too
        raise DataError(
            "the index holds embeddings that are not of unit length; make it anew with manyface "
            "enroll"
        )
    return rows, cosines


def _checked(faces: npt.NDArray[np.floating], size: int) -> Float32Array:
    """`faces` at unit length, float32 [Q, D]."""
    given = np.atleast_2d(np.asarray(faces, np.float32))
    if given.ndim != 2 or given.shape[1] != size:
        raise DataError(
            f"the index has embeddings of {size} values, the face has {list(given.shape)[-1]}: "
            "it is of another model"
        )
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(bad):
        raise NonFiniteError(f"the embedding of face {bad[0]} is not finite or zero")
    unit: Float32Array = given / lengths
    return unit


def false_alarms(far: float, num_people: int) -> float:
    """Share of strangers who are taken for somebody, if each comparison errs with share `far`.

    One embedding a person and independent comparisons: more of either make it more.
    """
    return float(-np.expm1(num_people * np.log1p(-far))) if far < 1 else 1.0

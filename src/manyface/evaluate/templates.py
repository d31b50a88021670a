"""IJB templates: many faces of one person as one vector, and cosines of millions of their pairs.

A template holds photos and frames of videos; all frames of one video are one *media*. The field
averages the faces of each media and adds the media up, so a face x of the template t and media m
counts 1 / (number of faces of m in t):

    template t = sum over its faces of  weight x feature,   then scaled to unit length

One weighted sum in the order of templates gives the same as the field's loops over templates and
media. Variants, named as insightface does:

    F1  feature of the face and of its mirror image, added      F0  of the face alone
    N1  with the length that the net gave it                    N0  scaled to unit length
    D1  times the detector's score                              D0  not

Sums and cosines are float64. Beware of names: `use_norm_score` of insightface's `ijb_evals.py`
(from Keras_insightface) *normalises* where it is true: its "N1" is N0 here and in `eval_ijbc.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, NonFiniteError
from manyface.evaluate.metrics import FloatArray, IntArray

Features = npt.NDArray[np.floating]

_FACES_AT_A_TIME = 4096
_PAIRS_AT_A_TIME = 1 << 14
_ROWS_AT_A_TIME = 512
_TABLE = 1 << 26  # up to which numbers of templates are looked up in a table
# A block of products costs less than gathering each pair's rows if one of so many is wanted.
_PRODUCTS_PER_PAIR = 20


@dataclass(frozen=True)
class Variant:
    """N, D and F of the field; `Variant.of("N1D1F1")`."""

    keep_norm: bool = True
    detector: bool = True
    flip: bool = True

    @classmethod
    def of(cls, name: str) -> "Variant":
        letters, digits = name.upper()[0::2], name[1::2]
        if letters != "NDF" or len(digits) != 3 or set(digits) - {"0", "1"}:
            raise DataError(f"expected a variant like N1D1F1 or N0D1F0, got {name!r}")
        return cls(*(digit == "1" for digit in digits))

    def __str__(self) -> str:
        return f"N{self.keep_norm:d}D{self.detector:d}F{self.flip:d}"


@dataclass(frozen=True)
class Templates:
    """Attributes:
    ids: [T] of the templates, rising.
    vectors: float64 [T, D] of unit length.
    """

    ids: npt.NDArray[np.int32]
    vectors: FloatArray

    def rows_of(self, ids: npt.NDArray[np.integer], what: str) -> npt.NDArray[np.int32]:
        """Where the templates `ids` stand.

        Raises:
            DataError: one has no face.
        """
        rows = self._places(ids)
        absent = (rows < 0) | (self.ids[rows] != ids)
        if absent.any():
            which = np.unique(ids[absent])
            raise DataError(
                f"{len(which)} templates of the {what} have no face in the list of faces (the "
                f"first is {which[0]}): a list is incomplete; fetch the meta files again"
            )
        return rows

    def _places(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Of those that exist; anything of the others."""
        last = int(self.ids[-1])
        if last > _TABLE or (len(ids) and int(ids.min()) < 0):
            found = np.searchsorted(self.ids, ids).astype(np.int32)
            return np.minimum(found, np.int32(len(self.ids) - 1))
        table = np.full(last + 2, -1, np.int32)  # the last place is for ids beyond all
        table[self.ids] = np.arange(len(self.ids), dtype=np.int32)
        places: npt.NDArray[np.int32] = table[np.minimum(ids, last + 1)]
        return places


def pool_templates(
    features: Features,
    templates: npt.NDArray[np.int32],
    media: npt.NDArray[np.int32],
    *,
    mirrored: Features | None = None,
    detector_scores: npt.NDArray[np.floating] | None = None,
    variant: Variant = Variant(),
) -> Templates:
    """Vectors of all templates of the faces `features` [N, D], as the net gave them.

    Args:
        features: a mapped file will do; some thousand rows are read at a time.
        mirrored: [N, D] of the mirror images, for F1.
        detector_scores: [N], for D1.

    Raises:
        DataError: lengths differ, the variant needs what is not given, or a template has length 0.
        NonFiniteError: a feature is not finite.
    """
    _check_given(features, templates, media, mirrored, detector_scores, variant)
    order = np.lexsort((media, templates))
    weights = _media_weights(templates[order], media[order])  # [N]
    if variant.detector and detector_scores is not None:
        weights = weights * detector_scores[order]
    ids, starts = np.unique(templates[order], return_index=True)
    sums = np.zeros((len(ids), features.shape[1]))
    for first in range(0, len(order), _FACES_AT_A_TIME):
        chosen = order[first : first + _FACES_AT_A_TIME]
        rows = _rows(features, mirrored if variant.flip else None, chosen, variant.keep_norm)
        rows *= weights[first : first + len(chosen), None]
        _add_runs(sums, rows, starts, first)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    if not lengths.all():
        raise DataError(f"template {ids[np.flatnonzero(lengths == 0)[0]]} adds up to length 0")
    return Templates(ids, sums / lengths)


def pair_cosines(
    vectors: FloatArray,
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FloatArray:
    """Cosine of rows left[i] and right[i] of `vectors` (unit), float64 [P].

    Where many pairs lie among few rows, as in IJB, products of blocks are made and the pairs read
    from them.
    """
    rows, columns = _number_of_each(left, len(vectors)), _number_of_each(right, len(vectors))
    num_rows, num_columns = rows.max(initial=-1) + 1, columns.max(initial=-1) + 1
    if num_rows * num_columns > _PRODUCTS_PER_PAIR * len(left):
        return _each_pair(vectors, left, right, progress)
    others = vectors[columns >= 0].T
    mine = vectors[rows >= 0]
    block_of = (rows[left] // _ROWS_AT_A_TIME).astype(np.uint16)  # radix sort: 16 bits are fast
    order = np.argsort(block_of, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(block_of))
    found, start = np.empty(len(left)), 0
    for number, end in enumerate(ends.tolist()):
        first = number * _ROWS_AT_A_TIME
        products = mine[first : first + _ROWS_AT_A_TIME] @ others
        pairs = order[start:end]
        found[pairs] = products[rows[left[pairs]] - first, columns[right[pairs]]]
        start = end
        progress(end, len(left))
    return np.clip(found, -1.0, 1.0, out=found)


def _number_of_each(places: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    """[count] numbers from 0 of the places that appear, -1 of others."""
    appears = np.bincount(places, minlength=count) > 0
    return np.where(appears, np.cumsum(appears) - 1, -1).astype(np.int32)


def _each_pair(
    vectors: FloatArray,
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    progress: Callable[[int, int], None],
) -> FloatArray:
    found = np.empty(len(left))
    for first in range(0, len(left), _PAIRS_AT_A_TIME):
        part = slice(first, first + _PAIRS_AT_A_TIME)
        found[part] = np.einsum("pd,pd->p", vectors[left[part]], vectors[right[part]])
        progress(min(first + _PAIRS_AT_A_TIME, len(left)), len(left))
    return np.clip(found, -1.0, 1.0, out=found)


def _check_given(
    features: Features,
    templates: npt.NDArray[np.int32],
    media: npt.NDArray[np.int32],
    mirrored: Features | None,
    detector_scores: npt.NDArray[np.floating] | None,
    variant: Variant,
) -> None:
    if features.ndim != 2 or not len(features) == len(templates) == len(media):
        raise DataError(
            f"expected a feature, a template and a media for each face, got features of shape "
            f"{features.shape}, {len(templates)} templates and {len(media)} media"
        )
    if not len(features):
        raise DataError("no faces: a template needs at least one")
    if variant.flip and (mirrored is None or mirrored.shape != features.shape):
        raise DataError(
            f"{variant} needs the features of the mirror images, {features.shape}, got "
            f"{'none' if mirrored is None else mirrored.shape}; or take F0"
        )
    if variant.detector and (detector_scores is None or len(detector_scores) != len(features)):
        raise DataError(
            f"{variant} needs a detector score for each of {len(features)} faces, got "
            f"{'none' if detector_scores is None else len(detector_scores)}; or take D0"
        )


def _media_weights(templates: npt.NDArray[np.int32], media: npt.NDArray[np.int32]) -> FloatArray:
    """1 / (faces of the same template and media), of faces sorted by both."""
    begins = np.ones(len(templates), bool)
    begins[1:] = (np.diff(templates) != 0) | (np.diff(media) != 0)
    run = np.cumsum(begins) - 1
    return np.asarray(1.0 / np.bincount(run)[run])


def _rows(
    features: Features, mirrored: Features | None, chosen: IntArray, keep_norm: bool
) -> FloatArray:
    rows = features[chosen].astype(np.float64)
    if mirrored is not None:
        rows += mirrored[chosen]
    if not np.isfinite(rows).all():
        face = int(chosen[np.flatnonzero(~np.isfinite(rows).all(axis=1))[0]])
        raise NonFiniteError(f"the feature of face {face} is not finite; embed the faces anew")
    if not keep_norm:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(lengths > 0, lengths, 1.0)
    return rows


def _add_runs(sums: FloatArray, rows: FloatArray, starts: IntArray, first: int) -> None:
    """Add rows, which stand from place `first` on in the order of templates, to their templates."""
    begin = int(np.searchsorted(starts, first, side="right")) - 1
    end = int(np.searchsorted(starts, first + len(rows)))
    cuts = np.maximum(starts[begin:end] - first, 0)
    sums[begin:end] += np.add.reduceat(rows, cuts, axis=0)

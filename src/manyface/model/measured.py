"""What an export is measured on: faces to compare two models on, and pairs for a threshold.

Of a run both are its own, unless others are given: its data, and the pairs it was evaluated on.
What has to be measured is measured with the very checkpoint that is exported; the files of an
evaluation are used where they are of that step.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyface.base.errors import DataError
from manyface.checkpoint import newest, step_of
from manyface.data import BinRecords, DecodedImages, ImageSource, open_records, read_bin
from manyface.data.synthetic import SyntheticFaces
from manyface.evaluate import PairEvaluator, bin_pairs
from manyface.model.face_model import FaceModel
from manyface.model.threshold import Threshold, threshold_at_far
from manyface.observe import read_events
from manyface.train import directory as places
from manyface.train.build_data import build_source
from manyface.train.build_model import Warn
from manyface.train.scoring import evaluate_run, read_run_config

NUM_FACES = 32
USUAL_FAR = 1e-3
_FOLDS = 10


def faces_at(path: Path, image_size: int, *, count: int = NUM_FACES) -> Tensor:
    """Faces of the set at `path`, spread over it, uint8 [n, S, S, 3], n at most `count`.

    Raises:
        DataError: it cannot be read, or one of the faces cannot.
    """
    return _spread(
        DecodedImages(open_records(path), image_size=image_size, substitute=False), count
    )


def faces_of_run(directory: Path, *, warn: Warn, count: int = NUM_FACES) -> Tensor:
    """Faces of the data that the run was trained on, as `faces_at`.

    Raises:
        DataError: they are not here.
    """
    try:
        return _spread(build_source(read_run_config(directory), warn=warn), count)
    except DataError as error:
        raise DataError(f"{error}; give faces to compare on with --faces") from error


def synthetic_faces(image_size: int, *, count: int = NUM_FACES) -> Tensor:
    """Rendered faces, for models that come without photos."""
    people = SyntheticFaces(
        num_identities=count, images_per_identity=1, image_size=image_size, seed=0
    )
    return _spread(people, count)


def stored_threshold(directory: Path, checkpoint: Path) -> Threshold | None:
    """Of the run's checkpoint at the usual FAR, by the files of its evaluation; None where these
    are of another one, or cannot show it."""
    found = _stored(directory, checkpoint)
    if found is None:
        return None
    name, similarity, same = found
    try:
        return threshold_at_far(similarity, same, USUAL_FAR, name=name)
    except DataError:
        return None


def threshold_of_run(
    directory: Path,
    checkpoint: Path,
    far: float | None = None,
    *,
    overrides: Sequence[str] = (),
    warn: Warn,
) -> Threshold | None:
    """Of the run's checkpoint on the pairs of its config, those with `overrides` on it; None if it
    names no pairs. `far` left out is the usual one.

    Raises:
        DataError: the pairs cannot be read, or cannot show `far`.
    """
    found = None if overrides else _stored(directory, checkpoint)
    if found is None:
        evaluated = evaluate_run(
            directory, checkpoint=checkpoint.name, overrides=overrides, write=False, warn=warn
        )
        if not evaluated:
            return None
        name, first = next(iter(evaluated.items()))
        found = name, first.similarity, first.same
    name, similarity, same = found
    return threshold_at_far(similarity, same, _wished(far), name=name)


def threshold_on_bin(model: FaceModel, path: Path, far: float | None = None) -> Threshold:
    """Of any model on a verification set of insightface (lfw.bin); `far` as `threshold_of_run`.

    Raises:
        DataError: it cannot be read, or cannot show `far`.
    """
    pairs = read_bin(path)
    images = DecodedImages(BinRecords(path, pairs), image_size=model.image_size, substitute=False)
    evaluator = PairEvaluator(
        bin_pairs(images, pairs.same, folds=min(_FOLDS, len(pairs.same)), name=path.stem),
        resamples=0,
    )
    found = evaluator(model.embed_batch)
    return threshold_at_far(found.similarity, found.same, _wished(far), name=path.stem)


def _wished(far: float | None) -> float:
    return USUAL_FAR if far is None else far


_Scored = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def _stored(directory: Path, checkpoint: Path) -> _Scored | None:
    """Name, similarity and truth of the run's last evaluation, where it was of this checkpoint."""
    if checkpoint != newest(directory / places.CHECKPOINTS):
        return None
    try:
        events = read_events(directory / places.EVENTS, warn=lambda text: None)
        last = [event for event in events if event["kind"] == "evaluation"][-1]
        if last["step"] != step_of(checkpoint):
            return None
        path = directory / places.EVALUATION / f"{last['set'].replace('/', '-')}.npz"
        with np.load(path, allow_pickle=False) as file:
            return last["set"], file["similarity"], file["same"].astype(bool)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # then it is measured anew


def _spread(source: ImageSource, count: int) -> Tensor:
    if len(source) == 0:
        raise DataError(f"there are no faces in {source.name}")
    return source.load(np.unique(np.linspace(0, len(source) - 1, count).astype(np.int64)))

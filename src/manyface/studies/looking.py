"""What is measured of a finished run besides its scores, from its folder alone.

cosines   over training: images to their own class center, and to the nearest other one
groups    accuracy on new photos of the people trained on, by how many photos they had
updates   how often a class center is moved without an image of its class, by the same groups
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from manyface.base.random import numpy_generator
from manyface.checkpoint import committed, load
from manyface.config import Config
from manyface.data import GroupedSource, Loader
from manyface.data.synthetic import SyntheticFaces
from manyface.evaluate import make_embed_function
from manyface.evaluate.embed import EmbedFunction, embed_source
from manyface.evaluate.metrics import cosine_scores, kfold_accuracy
from manyface.heads import FullFC, PartialFC
from manyface.train.build import build_method_for
from manyface.train.build_data import build_loader, build_source
from manyface.train.method import Classification, PoolTraining
from manyface.train.scoring import read_run_config
from manyface.train.state import restore

_NUM_IMAGES = 2_000
_PAIRS_OF_EACH = 1_000  # of a group: so many of one person, and so many of two
_NEW_PHOTOS, _FOLDS, _FEWEST = 4, 10, 10
_GROUPS = {"tail, 1 to 3 photos": 3, "middle, 4 to 20": 20, "head, more": 2**31}  # at most

Method = Classification | PoolTraining
Int64Array = npt.NDArray[np.int64]


def _quiet(text: str) -> None:
    """Warnings of a run have been told when it ran."""


@dataclass(frozen=True)
class _Built:
    """A run as it was built."""

    config: Config
    source: GroupedSource
    method: Method

    def embed(self) -> EmbedFunction:
        """As evaluation embeds, by the net as it is now."""
        return make_embed_function(self.method.embedder, flip=self.config.evaluation.flip)


def _build(directory: Path) -> _Built:
    config = read_run_config(directory)
    source = build_source(config, warn=_quiet)
    method = build_method_for(config, source, device=torch.device("cpu"), autocast=None)
    return _Built(config, source, method)


# --- cosines --------------------------------------------------------------------------------------


def cosines(directory: Path) -> list[dict[str, float]]:
    """Of each checkpoint: step, mean cosine to the own center, to the nearest other; [] without
    class centers. Over photos drawn from those trained on, as they are, not augmented."""
    built = _build(directory)
    head = built.method.head if isinstance(built.method, Classification) else None
    if not isinstance(head, FullFC | PartialFC):
        return []
    draw = numpy_generator(0, "study", "cosines")
    images = np.sort(draw.permutation(len(built.source))[:_NUM_IMAGES])
    labels = torch.from_numpy(built.source.labels(images))
    found = []
    for path in committed(directory / "checkpoints"):
        step = restore(built.method, load(path)).step
        embeddings = torch.from_numpy(embed_source(built.embed(), built.source, images))
        own, nearest = _own_and_nearest(embeddings, labels, head)
        found.append({"step": step, "own": own, "nearest_other": nearest})
    return found


def _own_and_nearest(
    embeddings: torch.Tensor, labels: torch.Tensor, head: FullFC | PartialFC
) -> tuple[float, float]:
    """Means over embeddings [B, D] of unit length; of sub-centers the nearest counts."""
    centers = head.class_centers(torch.arange(head.num_classes)).float()  # [N, D] or [N, S, D]
    centers = torch.nn.functional.normalize(centers, dim=-1).view(-1, centers.shape[-1])
    near = (embeddings @ centers.T).view(len(labels), head.num_classes, -1).amax(dim=2)  # [B, N]
    own = near.gather(1, labels[:, None])
    others = near.scatter(1, labels[:, None], -1.0).amax(dim=1)
    return float(own.mean()), float(others.mean())


# --- groups ---------------------------------------------------------------------------------------


def groups(directory: Path) -> list[dict[str, Any]]:
    """Of each group of synthetic people: name, people, photos trained on, accuracy on new ones."""
    built = _build(directory)
    restore(built.method, load(committed(directory / "checkpoints")[-1]))
    embed, counts = built.embed(), _counts(built.source)
    fresh, first = _new_photos(built.config, int(counts.max()))
    found = []
    for name, people in _people_of(counts).items():
        accuracy = _accuracy(embed, fresh, people, first=first)
        photos = int(counts[people].sum())
        found.append({"group": name, "people": len(people), "photos": photos, "accuracy": accuracy})
    return found


def _counts(source: GroupedSource) -> Int64Array:
    return source.images_of(np.arange(source.num_identities))[1]


def _people_of(counts: Int64Array) -> dict[str, Int64Array]:
    """Who is in which group; groups of a few people are left out."""
    found, least = {}, 0
    for name, most in _GROUPS.items():
        people = np.flatnonzero((counts > least) & (counts <= most))
        least = most
        if len(people) >= _FEWEST:
            found[name] = people
    return found


def _new_photos(config: Config, most: int) -> tuple[SyntheticFaces, int]:
    """The people trained on with photos that nobody was, and which photo of each is the first."""
    chosen = config.data.synthetic
    faces = SyntheticFaces(
        num_identities=chosen.num_identities,
        images_per_identity=most + _NEW_PHOTOS,
        image_size=config.data.image_size,
        seed=chosen.seed,
        difficulty=chosen.difficulty,
    )
    return faces, most


def _accuracy(
    embed: EmbedFunction, faces: SyntheticFaces, people: Int64Array, *, first: int
) -> float:
    """Of the threshold by folds, on pairs of one and of two people of a group."""
    draw = numpy_generator(0, "study", "groups")
    left = draw.choice(people, 2 * _PAIRS_OF_EACH)
    same = np.arange(len(left)) < _PAIRS_OF_EACH
    away = draw.integers(1, len(people), len(left))
    right = np.where(same, left, people[(np.searchsorted(people, left) + away) % len(people)])
    photos = np.stack([draw.permutation(_NEW_PHOTOS)[:2] for _ in left])  # [P, 2], not twice one
    images = np.concatenate([left, right]) * faces.images_per_identity + first
    pairs = embed_source(embed, faces, images + np.concatenate([photos[:, 0], photos[:, 1]]))
    similarity = cosine_scores(*np.split(pairs, 2))
    return kfold_accuracy(similarity, same, np.arange(len(left)) % _FOLDS).mean


# --- updates --------------------------------------------------------------------------------------


def updates(directory: Path) -> list[dict[str, Any]]:
    """Of each group: steps in which an average center is moved with, and without, an image of its
    class; [] without class centers. The run's batches and draws, made once more."""
    built = _build(directory)
    head = built.method.head if isinstance(built.method, Classification) else None
    loader = build_loader(built.config, built.source, built.method)
    if not isinstance(head, FullFC | PartialFC) or not isinstance(loader, Loader):
        return []
    restore(built.method, load(committed(directory / "checkpoints")[-1]))
    steps = head.num_steps
    own, moved = np.zeros(head.num_classes, np.int64), np.zeros(head.num_classes, np.int64)
    for step in range(steps):
        labels = torch.from_numpy(built.source.labels(loader.records_of(step)))
        head.num_steps = step
        places = head.row_order(labels)
        ids = head.select(places).ids
        own[np.unique(places.numpy())] += 1
        moved[slice(None) if ids is None else ids.numpy()] += 1
    found = []
    for name, people in _people_of(_counts(built.source)).items():
        here = head.row_order(torch.from_numpy(people)).numpy()
        passive = float((moved - own)[here].mean())
        found.append({"group": name, "own": float(own[here].mean()), "passive": passive})
    return found


LOOKS: Mapping[str, Callable[[Path], Any]] = {
    "cosines": cosines,
    "groups": groups,
    "updates": updates,
}

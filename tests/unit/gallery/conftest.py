"""Made-up people: embeddings around a direction of each person."""

import os
from collections.abc import Callable

import numpy as np
import pytest

from manyface.gallery import Faces, Limit, Maker, PeopleIndex

D = 32
MAKER = Maker("a" * 32, D, "runs/net", Limit(0.4, 1e-3, "lfw"))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def make_faces(counts: dict[str, int], *, seed: int = 0, noise: float = 0.6) -> Faces:
    """`counts` images of each person; the same name is the same person whatever the seed."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    looks = np.stack(
        [np.random.default_rng(sum(os.fsencode(name))).normal(size=D) for name in counts]
    )
    rows = unit(looks[labels]) + noise * unit(rng.normal(size=(len(labels), D)))
    images = [f"{k}.jpg" for count in counts.values() for k in range(count)]
    return Faces(unit(rows), labels, list(counts), images)


@pytest.fixture
def index() -> PeopleIndex:
    faces = make_faces({"Ann": 3, "Bob": 1, "Cy": 2})
    return PeopleIndex.new(MAKER).enrol(faces, source="faces/", when="2026-01-01")


@pytest.fixture
def many() -> Callable[..., PeopleIndex]:
    """many(count) -> an index of so many people with one embedding each."""

    def make(count: int, *, size: int = D, seed: int = 0) -> PeopleIndex:
        rng = np.random.default_rng(seed)
        names = [f"p{k}" for k in range(count)]
        rows = unit(rng.normal(size=(count, size)))
        faces = Faces(rows, np.arange(count), names, [f"{name}.jpg" for name in names])
        return PeopleIndex.new(Maker("b" * 32, size)).enrol(faces, source="made up", when="")

    return make

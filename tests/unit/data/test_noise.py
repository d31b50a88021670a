"""Labels made wrong on purpose: which, how many, and that images stay what they are."""

import numpy as np
import pytest
import torch

from manyface.base.errors import DataError
from manyface.data import NoisyLabels
from manyface.data.synthetic import SyntheticFaces


def faces(people: int = 200, images: int = 6, **options: float) -> SyntheticFaces:
    return SyntheticFaces(
        num_identities=people, images_per_identity=images, image_size=32, **options
    )


def everyone(source: NoisyLabels) -> np.ndarray:
    return np.arange(len(source))


def check_grouped(source: NoisyLabels) -> None:
    """Labels in order, without gaps, and as many images as `images_of` says."""
    labels = source.labels(everyone(source))
    assert (np.diff(labels) >= 0).all()
    first, count = source.images_of(np.arange(source.num_identities))
    assert np.array_equal(count, np.bincount(labels, minlength=source.num_identities))
    assert first[0] == 0
    assert (count > 0).all()
    assert np.array_equal(first[1:], np.cumsum(count)[:-1])
    assert len(source.identity_names) == source.num_identities


@pytest.mark.parametrize("tail", [0, 50])
def test_a_share_of_people_is_dealt_to_labels_evenly(tail: float) -> None:
    right = faces(people=3000, long_tail=tail)
    source = NoisyLabels(right, split=0.4, parts=3, seed=5)
    check_grouped(source)
    labels, people = source.labels(everyone(source)), source.people(everyone(source))
    assert np.array_equal(source.person_of(labels), people)  # nothing flipped
    owners = source.person_of(np.arange(source.num_identities))
    labels_of = np.bincount(owners, minlength=3000)
    _, images_of = right.images_of(np.arange(3000))
    split = labels_of > 1
    assert 0.36 < split[images_of > 1].mean() < 0.44
    assert (labels_of[split] == np.minimum(images_of[split], 3)).all()
    _, count = source.images_of(np.arange(source.num_identities))
    for person in np.flatnonzero(split)[:50]:
        assert np.ptp(count[owners == person]) <= 1


def test_photos_go_to_other_labels_each_as_likely() -> None:
    source = NoisyLabels(faces(people=50, images=400), flip=0.3, seed=1)
    check_grouped(source)
    labels, people = source.labels(everyone(source)), source.people(everyone(source))
    wrong = labels != people
    assert 0.29 < wrong.mean() < 0.31
    counts = np.bincount((labels - people)[wrong] % 50, minlength=50)
    assert counts[0] == 0
    assert counts[1:].min() > 70
    assert counts[1:].max() < 180


def test_a_label_that_has_lost_its_photos_is_gone() -> None:
    source = NoisyLabels(faces(people=300, images=1), flip=0.6, seed=2)
    check_grouped(source)
    assert source.num_identities < 300


def test_images_and_names_are_of_the_people() -> None:
    right = faces()
    source = NoisyLabels(right, split=0.5, flip=0.2, seed=3)
    some = np.array([0, 17, 400, 1199])
    people = source.people(some)
    shown = source.load(some)
    candidates = [right.load(np.arange(6) + 6 * person) for person in people]
    for image, theirs in zip(shown, candidates, strict=True):
        assert (theirs == image).flatten(1).all(1).any()
    names = source.identity_names
    assert names[7] == right.identity_names[int(source.person_of(np.array([7]))[0])]
    out = torch.empty(4, 32, 32, 3, dtype=torch.uint8)
    assert torch.equal(source.load(some, out), shown)
    assert torch.equal(out, shown)


def test_storage_order_and_repeat() -> None:
    right = faces()
    one, two = (NoisyLabels(right, split=0.5, flip=0.2, seed=4) for _ in range(2))
    assert np.array_equal(one.labels(everyone(one)), two.labels(everyone(two)))
    other = NoisyLabels(right, split=0.5, flip=0.2, seed=5)
    assert not np.array_equal(one.people(everyone(one)), other.people(everyone(other)))
    places = np.array([3, 900, 5])
    assert torch.equal(one.load(one.from_storage(places)), right.load(places))


def test_no_noise_changes_nothing() -> None:
    source = NoisyLabels(faces(), seed=0)
    assert np.array_equal(source.labels(everyone(source)), source.people(everyone(source)))
    assert np.array_equal(source.from_storage(everyone(source)), everyone(source))


def test_what_cannot_be() -> None:
    with pytest.raises(DataError, match="one person only"):
        NoisyLabels(faces(people=1), flip=0.5)
    with pytest.raises(IndexError):
        NoisyLabels(faces(), flip=0.1).labels(np.array([1200]))

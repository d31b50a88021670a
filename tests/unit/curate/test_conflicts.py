"""Conflicts put into made-up embeddings are found, and nothing else is."""

import numpy as np
import pytest
import torch

from manyface.base.errors import DataError
from manyface.curate import EmbeddedSet, embed_set, find_conflicts, find_shared, measure_thresholds
from manyface.curate.embedded import cosine_to_own, nearest_center, unit

DIM = 64


def people(count, *, seed=0, spread=0.7, images=(3, 12), centers=None):
    """A clean set: `count` people, each image a unit center plus noise."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(*images, count)
    if centers is None:
        centers = rng.standard_normal((count, DIM))
    centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    noise = rng.standard_normal((counts.sum(), DIM)) / np.sqrt(DIM) * spread
    vectors = np.repeat(centers, counts, axis=0) + noise
    return vectors, np.concatenate([[0], np.cumsum(counts)]), centers


def as_set(vectors, starts):
    return EmbeddedSet(unit(torch.tensor(vectors, dtype=torch.float32)).half(), starts)


def test_a_clean_set_has_none():
    found = find_conflicts(as_set(*people(300)[:2]))
    assert len(found.split.people) == 0
    assert len(found.wrong_labels.records) == 0
    assert len(found.strangers.records) <= 0.005 * 300 * 7


def test_images_under_the_label_of_another_are_found_with_whose_they_are():
    vectors, starts, centers = people(300)
    rng = np.random.default_rng(1)
    expected = {}
    for person in rng.choice(300, 20, replace=False).tolist():
        record, belongs = int(starts[person]), (person + 17) % 300
        vectors[record] = centers[belongs] + rng.standard_normal(DIM) / 8 * 0.7
        expected[record] = belongs
    found = find_conflicts(as_set(vectors, starts)).wrong_labels
    assert dict(zip(found.records.tolist(), found.people.tolist(), strict=True)) == expected
    assert (found.to_other > found.to_own).all()


def test_one_person_under_two_labels_is_found_and_no_image_is_blamed():
    _, _, centers = people(300)
    for person in range(10):
        centers[100 + person] = centers[person]
    found = find_conflicts(as_set(*people(300, centers=centers)[:2]))
    assert {tuple(pair) for pair in found.split.people.tolist()} == {
        (i, 100 + i) for i in range(10)
    }
    assert len(found.wrong_labels.records) == 0


def test_images_like_nobody_are_strangers():
    vectors, starts, _ = people(300)
    chosen = starts[np.arange(5) * 11]
    vectors[chosen] = np.random.default_rng(5).standard_normal((5, DIM))
    found = find_conflicts(as_set(vectors, starts)).strangers.records.tolist()
    assert set(chosen.tolist()) <= set(found)
    assert len(found) < 15


def test_only_images_are_never_called_wrong():
    vectors, starts, centers = people(300)
    vectors = np.concatenate([vectors, centers[:1]])
    starts = np.append(starts, len(vectors))
    found = find_conflicts(as_set(vectors, starts))
    assert found.split.people.tolist() == [[0, 300]]
    assert len(found.wrong_labels.records) == 0


def test_too_few_to_measure():
    with pytest.raises(DataError, match="20 are needed"):
        measure_thresholds(as_set(*people(50, images=(1, 4))[:2]))


def test_cosine_to_own_leaves_the_image_out():
    vectors, starts, _ = people(40)
    images = as_set(vectors, starts)
    found = cosine_to_own(images, images.sums())
    values = images.vectors.float().numpy()
    for record in (0, 5, len(values) - 1):
        person = images.labels[record]
        others = [r for r in range(starts[person], starts[person + 1]) if r != record]
        mean = values[others].sum(axis=0)
        expected = mean @ values[record] / np.linalg.norm(mean)
        assert found[record] == pytest.approx(expected, abs=1e-5)
    alone = as_set(vectors[:3], np.array([0, 1, 3]))
    assert np.isnan(cosine_to_own(alone, alone.sums())).tolist() == [True, False, False]


@pytest.mark.parametrize("own", [True, False])
def test_nearest_center_in_parts(monkeypatch, own):
    monkeypatch.setattr("manyface.curate.embedded._CENTERS_AT_A_TIME", 7)
    monkeypatch.setattr("manyface.curate.embedded._IMAGES_AT_A_TIME", 5)
    rows, centers = (unit(torch.randn(n, DIM)) for n in (23, 31))
    mine = np.arange(23) if own else None
    cosines = rows @ centers.T
    if own:
        cosines[range(23), range(23)] = -9
    place, best = nearest_center(rows, centers, mine)
    np.testing.assert_array_equal(place, cosines.argmax(dim=1).numpy())
    np.testing.assert_allclose(best, cosines.max(dim=1).values.numpy(), atol=1e-6)


def test_shared_people_are_found_one_to_one():
    _, _, centers = people(200)
    rng = np.random.default_rng(9)
    theirs = rng.standard_normal((150, DIM))
    theirs[:30] = centers[50:80]
    found = find_shared(
        as_set(*people(200, centers=centers)[:2]),
        as_set(*people(150, seed=4, centers=theirs)[:2]),
    )
    assert {(int(a), int(b)) for a, b in zip(found.first, found.second, strict=True)} == {
        (50 + i, i) for i in range(30)
    }
    assert (np.diff(found.cosines) <= 0).all()


class Numbers:
    """A source whose images are their own number."""

    name, image_size, num_identities = "numbers", 1, 3
    identity_names = ("a", "b", "c")
    starts = np.array([0, 2, 3, 7])

    def __len__(self):
        return 7

    def labels(self, indices):
        return np.searchsorted(self.starts, indices, side="right") - 1

    def load(self, indices):
        return torch.tensor(indices, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 1, 3)

    def images_of(self, identities):
        return self.starts[identities], np.diff(self.starts)[identities]


def test_embed_set_keeps_the_order(monkeypatch):
    monkeypatch.setattr("manyface.curate.embedded._IMAGES_AT_A_TIME", 3)
    told = []

    def embed(images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 7).float()

    found = embed_set(embed, Numbers(), progress=lambda done, total: told.append((done, total)))
    torch.testing.assert_close(found.vectors, torch.eye(7).half())
    assert found.starts.tolist() == [0, 2, 3, 7]
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_one_person_only():
    vectors, starts, _ = people(1, images=(5, 6))
    with pytest.raises(DataError, match="one person only"):
        find_conflicts(as_set(vectors, starts), same_person=0.5)


def test_one_image_of_everybody():
    """Nothing tells what is usual for an image and its person, and nothing is guessed."""
    vectors, starts, _ = people(40, images=(1, 2))
    vectors[7] = vectors[3]
    found = find_conflicts(as_set(vectors, starts), same_person=0.9)
    assert found.split.people.tolist() == [[3, 7]]
    assert len(found.wrong_labels.records) == len(found.strangers.records) == 0

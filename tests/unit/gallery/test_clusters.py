"""Clusters: average linkage as scipy does it; agreement with people by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import pair_confusion_matrix

from manyface.base.errors import DataError
from manyface.gallery import Agreement, bcubed, cluster, pairwise
from manyface.gallery import clusters as clusters_module

from .conftest import make_faces, unit


def same_groups(one, other):
    return np.array_equal(one[:, None] == one, other[:, None] == other)


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    limit=st.floats(0.1, 0.9),
    seed=st.integers(0, 999),
)
def test_with_all_neighbours_it_is_average_linkage(counts, limit, seed):
    rows = make_faces({f"p{k}": n for k, n in enumerate(counts)}, seed=seed, noise=1.2).embeddings
    if len(rows) < 2:
        return
    apart = np.maximum(1 - rows.astype(np.float64) @ rows.T.astype(np.float64), 0)
    tree = linkage(apart[np.triu_indices(len(rows), 1)], "average")
    if np.abs(tree[:, 2] - (1 - limit)).min() < 1e-5 or np.diff(tree[:, 2]).min(initial=1) < 1e-6:
        return  # rounding decides
    expected = fcluster(tree, 1 - limit, "distance")
    assert same_groups(cluster(rows, limit=limit, neighbours=len(rows)), expected)


def test_people_are_found_and_the_largest_comes_first():
    faces = make_faces({"Ann": 3, "Bob": 40, "Cy": 1}, noise=0.5)
    found = cluster(faces.embeddings, limit=0.5, neighbours=5)
    assert found.tolist() == [1] * 3 + [0] * 40 + [2]


def test_an_image_between_two_people_does_not_join_them():
    one, other = np.eye(8)[:2]
    rows = unit(np.stack([one, one, one, other, other, other, one + other]))
    found = cluster(rows, limit=0.6)
    assert len(set(found[:3])) == len(set(found[3:6])) == 1
    assert found[0] != found[3]


def test_parts_make_no_difference(monkeypatch):
    rows = make_faces({f"p{k}": 3 for k in range(20)}, noise=1.0).embeddings
    whole = cluster(rows, limit=0.4, neighbours=7)
    monkeypatch.setattr(clusters_module, "_ROWS", 7)
    monkeypatch.setattr(clusters_module, "_COLUMNS", 11)
    seen = []
    parts = cluster(rows.astype(np.float32), limit=0.4, neighbours=7,
                    progress=lambda *news: seen.append(news))  # fmt: skip
    np.testing.assert_array_equal(whole, parts)
    assert seen[-1] == (60, 60)


def test_the_order_of_images_makes_no_difference():
    rows = make_faces({f"p{k}": 4 for k in range(12)}, noise=1.1).embeddings
    order = np.random.default_rng(0).permutation(len(rows))
    whole, shuffled = (cluster(some, limit=0.35) for some in (rows, rows[order]))
    assert same_groups(whole[order], shuffled)


def test_one_image_is_a_group():
    assert cluster(np.eye(4, dtype=np.float16)[:1], limit=0.3).tolist() == [0]


def test_copies_count_as_images_and_are_looked_at_once():
    rows = make_faces({f"p{k}": 3 for k in range(6)}, noise=1.1).embeddings
    copies = np.random.default_rng(0).permutation(np.arange(len(rows)).repeat(np.arange(18) + 1))
    seen = []
    found = cluster(
        rows[copies], limit=0.45, neighbours=18, progress=lambda *news: seen.append(news)
    )
    assert seen == [(18, 18)]
    apart = 1 - rows[copies].astype(np.float64) @ rows[copies].T.astype(np.float64)
    tree = linkage(np.maximum(apart, 0)[np.triu_indices(len(copies), 1)], "average")
    assert same_groups(found, fcluster(tree, 1 - 0.45, "distance"))
    equal = cluster(rows[np.zeros(50, np.int64)], limit=1.0)
    assert not equal.any(), "whatever rounding makes of a cosine of 1"


def test_nothing_and_no_cosine():
    with pytest.raises(DataError, match="no images"):
        cluster(np.zeros((0, 4)), limit=0.3)
    with pytest.raises(DataError, match="a cosine"):
        cluster(np.eye(4), limit=1.5)


def brute_bcubed(groups, people):
    shares = []
    for k in range(len(groups)):
        group, person = groups == groups[k], people == people[k]
        shares.append((np.sum(group & person) / group.sum(), np.sum(group & person) / person.sum()))
    return np.mean(shares, axis=0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_agreement_by_brute_force(labels):
    groups, people = np.array(labels).T
    found = bcubed(groups, people)
    np.testing.assert_allclose((found.precision, found.recall), brute_bcubed(groups, people))
    (_, mixed), (split, together) = pair_confusion_matrix(people, groups)
    found = pairwise(groups, people)
    assert found.precision == pytest.approx(
        together / (together + mixed) if together + mixed else 1
    )
    assert found.recall == pytest.approx(together / (together + split) if together + split else 1)


def test_f_and_unequal_lengths():
    assert Agreement(0.5, 1.0).f == pytest.approx(2 / 3)
    assert Agreement(0, 0).f == 0
    with pytest.raises(DataError, match="one length"):
        bcubed(np.zeros(2, np.int64), np.zeros(3, np.int64))

"""Search: against brute force, by codes against exact; people with many embeddings; bad faces."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError, MissingExtraError, NonFiniteError
from manyface.gallery import Faces, Maker, PeopleIndex, Search, false_alarms
from manyface.gallery import index as index_module
from manyface.gallery import search as search_module

from .conftest import MAKER, D, make_faces, unit


def brute_force(index, query, count):
    """(name, cosine) of the most like people, in float64."""
    people = index.people
    query = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    cosines = people.embeddings.astype(np.float64) @ query
    best = {}
    for label, cosine in zip(people.labels.tolist(), cosines.tolist(), strict=True):
        best[people.names[label]] = max(cosine, best.get(people.names[label], -2))
    return sorted(best.items(), key=lambda item: -item[1])[:count]


def check(index, found, queries, count):
    for query, matches in zip(queries, found, strict=True):
        expected = brute_force(index, query, count)
        assert [match.name for match in matches] == [name for name, _ in expected]
        np.testing.assert_allclose([m.cosine for m in matches], [c for _, c in expected], atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    count=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_people_as_by_brute_force(counts, count, seed):
    faces = make_faces({f"p{k}": n for k, n in enumerate(counts)}, seed=seed)
    index = PeopleIndex.new(MAKER).enrol(faces, source="", when="")
    queries = np.random.default_rng(seed).normal(size=(3, D))
    check(index, Search(index, candidates=1).people(queries, count), queries, count)


def test_the_image_that_was_most_like_is_named(index):
    match = Search(index).people(index.people.embeddings[1].astype(np.float32), 1)[0][0]
    assert (match.name, match.image) == ("Ann", "1.jpg")
    assert match.cosine == pytest.approx(1, abs=1e-3)


def test_parts_make_no_difference(index, monkeypatch):
    queries = np.random.default_rng(0).normal(size=(7, D)).astype(np.float32)
    whole = Search(index).nearest(queries, 4)
    monkeypatch.setattr(search_module, "_ROWS_AT_A_TIME", 2)
    monkeypatch.setattr(search_module, "_QUERIES_AT_A_TIME", 3)
    for one, other in zip(whole, Search(index).nearest(queries, 4), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_by_codes_as_exactly(many, monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 5000)
    index = many(5000, size=64)
    rng = np.random.default_rng(1)
    target = rng.integers(0, 5000, 200)
    rows = index.people.embeddings[target].astype(np.float32)
    noise = unit(rng.normal(size=rows.shape))
    queries = unit(0.6 * rows + 0.8 * noise)
    quick, exact = Search(index, candidates=200), Search(index, exact=True)
    found, expected = (search.nearest(queries, 1) for search in (quick, exact))
    agree = found[0] == expected[0]
    assert agree.mean() >= 0.99
    np.testing.assert_allclose(found[1][agree], expected[1][agree], atol=1e-6)
    names = [match[0].name for match in quick.people(queries, 1)]
    assert np.mean([name == f"p{row}" for name, row in zip(names, target, strict=True)]) > 0.95


def test_a_person_with_more_embeddings_than_candidates_hides_nobody(monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 100)
    faces = make_faces({"crowd": 400, "Bob": 1, "Cy": 1}, noise=0.1)
    index = PeopleIndex.new(MAKER).enrol(faces, source="", when="")
    query = faces.embeddings[:1]
    found = Search(index, candidates=5).people(query, 3)
    assert index.codes is not None
    check(index, found, query, 3)


def test_faces_without_direction_or_of_another_size(index):
    search = Search(index)
    with pytest.raises(NonFiniteError, match="face 1 "):
        search.people(np.stack([np.ones(D), np.full(D, np.nan)]))
    with pytest.raises(DataError, match=f"{D} values, the face has 9"):
        search.people(np.ones(9))


def test_nobody_is_enrolled():
    with pytest.raises(DataError, match="nobody is enrolled"):
        Search(PeopleIndex.new(Maker("", 8)))


def test_a_large_index_needs_faiss(many, monkeypatch):
    monkeypatch.setattr(index_module, "CODES_FROM", 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    index = many(20)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[faiss\]'"):
        Search(index)
    assert Search(index, exact=True).people(np.ones(D), 1)


def test_false_alarms_of_many_people():
    assert false_alarms(1e-3, 1) == pytest.approx(1e-3)
    assert false_alarms(1e-3, 1000) == pytest.approx(1 - 0.999**1000)
    assert false_alarms(0, 10**9) == 0


def test_no_faces_give_no_matches(index):
    assert Search(index).people(np.zeros((0, D))) == []
    rows, cosines = Search(index).nearest(np.zeros((0, D)), 3)
    assert rows.shape == cosines.shape == (0, 3)


def test_labels_are_of_people_not_of_rows(index):
    faces = Faces(np.eye(D)[:2], np.array([1, 1]), ["none", "One"], ["a", "b"])
    found = Search(index.enrol(faces, source="", when="")).people(np.eye(D)[1], 1)[0][0]
    assert (found.name, found.image) == ("One", "b")

"""The computed permutation is a bijection, differs by seed, and looks random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.permutation import Permutation


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 3000), seed=st.integers(0, 2**60))
def test_bijection(length: int, seed: int) -> None:
    images = Permutation(length, seed=seed)(np.arange(length))
    assert np.array_equal(np.sort(images), np.arange(length))


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 10**12), seed=st.integers(0, 2**60), data=st.data())
def test_the_position_of_an_image_is_found(length: int, seed: int, data: st.DataObject) -> None:
    permutation = Permutation(length, seed=seed)
    position = data.draw(st.integers(0, length - 1))
    assert permutation.position_of(int(permutation(np.array([position]))[0])) == position


def test_any_part_equals_the_whole() -> None:
    permutation = Permutation(10_007, seed=5)
    whole = permutation(np.arange(10_007))
    some = np.array([[9, 10_006], [0, 777]])
    assert np.array_equal(permutation(some), whole[some])


def test_looks_random() -> None:
    length = 100_000
    images = [Permutation(length, seed=seed)(np.arange(length)) for seed in (1, 2)]
    assert np.mean(images[0] == images[1]) < 1e-3
    for image in images:
        assert abs(np.corrcoef(image, np.arange(length))[0, 1]) < 0.02
        assert abs(np.corrcoef(image[1:], image[:-1])[0, 1]) < 0.02


def test_a_billion_positions_need_no_table() -> None:
    images = Permutation(10**9, seed=0)(np.array([0, 1, 10**9 - 1]))
    assert ((images >= 0) & (images < 10**9)).all()


@pytest.mark.parametrize("position", [-1, 10])
def test_outside_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match="positions must be in"):
        Permutation(10, seed=0)(np.array([position]))

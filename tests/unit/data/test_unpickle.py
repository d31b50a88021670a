"""Pickles are read by a machine of ours: the values of lists of images, and nothing that runs."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyface.base.errors import DataError
from manyface.data.unpickle import PickledArray, unpickle

PROTOCOLS = range(6)


def plain(value: Any) -> Any:
    """Arrays as numpy knows them, for comparison."""
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    if isinstance(value, PickledArray):
        flat = np.frombuffer(value.data, np.dtype(value.order + value.code))
        return flat.reshape(value.shape, order="F" if value.is_fortran else "C")
    return value


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=300),
    st.text(st.characters(max_codepoint=0x2FFFF, exclude_categories=["Cs"]), max_size=20),
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.lists(inner).map(tuple))


@settings(deadline=None, max_examples=60)
@given(value=values)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_python_wrote(value: Any, protocol: int) -> None:
    assert unpickle(pickle.dumps(value, protocol), "x") == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=np.uint8),
        np.arange(7, dtype=np.uint8)[:, None],
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.array([True, False]),
        np.array([1, -2], ">i4"),
        np.zeros((0, 1), np.uint8),
        np.frombuffer(b"read only", np.uint8),
    ],
    ids=str,
)
def test_reads_arrays(array: np.ndarray, protocol: int) -> None:
    found = plain(unpickle(pickle.dumps([array, array], protocol), "x"))
    assert len(found) == 2
    for each in found:
        assert each.dtype == array.dtype
        assert each.shape == array.shape
        assert np.array_equal(each, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_numbers_of_numpy_and_bytearrays(protocol: int) -> None:
    value = [np.bool_(True), np.int64(-3), np.uint8(200), bytearray(b"a\xff"), bytearray(), b""]
    found = unpickle(pickle.dumps(value, protocol), "x")
    assert found == [True, -3, 200, b"a\xff", b"", b""]
    assert found[0] is True


# What Python 2.7 writes for (['\xff\xd8\n\'"', buffer], [True, False]); it is not installed here,
# so these are its opcodes by hand: str as STRING, SHORT_BINSTRING or BINSTRING, names of Python 2.
BY_PYTHON_2 = [
    b"((lp0\nS'\\xff\\xd8\\n\\'\"'\np1\na(lp2\nI01\naI00\natp3\n.",
    b"(]q\x00U\x05\xff\xd8\n'\"q\x01a]q\x02(I01\nI00\netq\x03.",
    b"\x80\x02]q\x00T\x05\x00\x00\x00\xff\xd8\n'\"q\x01a]q\x02(\x88\x89e\x86q\x03.",
]


@pytest.mark.parametrize("data", BY_PYTHON_2, ids=["0", "1", "2"])
def test_reads_python_2(data: bytes) -> None:
    assert unpickle(data, "x") == ([b"\xff\xd8\n'\""], [True, False])
    assert pickle.loads(data, encoding="bytes") == ([b"\xff\xd8\n'\""], [True, False])


def test_reads_arrays_of_python_2() -> None:
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b"
        b"\x87R(K\x01K\x03K\x01\x86cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x03\xff\xd8\xffq\x05tb."
    )
    found = unpickle(data, "x")
    assert (found.code, found.shape, found.data) == ("u1", (3, 1), b"\xff\xd8\xff")


def test_ignores_what_follows_as_python_does() -> None:
    assert unpickle(pickle.dumps(3) + b"more", "x") == 3


class Calls:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call


class Named:
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value, words",
    [
        (Calls(exec, ("raise SystemExit",)), "exec"),
        (Calls(Path, ("x",)), "pathlib"),
        (Calls(np.dtype, ("i8",), (3, "x", None, None, None)), "an array of xi8"),
        (Named(), "copy_reg|copyreg|Named|an object"),
        ({"a": 1}, "a dictionary"),
        ({1, 2}, "a set|builtin.*set"),
        (0.5, "a fraction"),
        (2**70, "more than 64 bits"),
        (10**400, "more than 64 bits|damaged"),
        (np.array([None, 1]), "an array of O8"),
        (np.zeros(2, np.float32), "an array of f4"),
        (np.zeros(2, [("a", "u1")]), "an array of V1"),
        (np.array(["ab"]), "an array of U2"),
        (np.float64(1), "an array of f8"),
        (np.random.default_rng(0), "random"),
    ],
)
def test_refuses_the_rest_by_name(value: Any, words: str, protocol: int) -> None:
    with pytest.raises(DataError, match=words):
        unpickle(pickle.dumps(value, protocol), "set.bin")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80\x04", b".", b"N", b"hello", b"\x80\x04K\x01", b"(.", b"(0.", b"h\x05.",
     b"g5\n.", b"gx\n.", b"I\n.", b"I1", b"S'a\n.", b"S'\\q'\n.", b"V\\ud8\n.", b"\x85.", b"a.",
     b"X\x01\x00\x00\x00\xff.", b"\x80\x09N.", b"T\xff\xff\xff\xff.", b"(1.", b"\xff.", b"t.",
     b"cos\n.", b"\x93.", b"NN\x93.", b"\x80\x04\x8c\x01a]\x93.", b"NR.", b"NNR.", b"NNb."],
)  # fmt: skip
def test_damage_is_one_kind_of_error(data: bytes) -> None:
    with pytest.raises(DataError, match=r"set.bin, byte \d+: "):
        unpickle(data, "set.bin")

"""Pickles of strangers, read without running anything: a small machine of our own.

A pickle is a program. Python's own reader imports what it names and calls it; even with its
`find_class` closed it allocates what a few bytes ask for (4 GiB of memo for one PUT). This reader
knows the opcodes that lists of images and answers are made of, in protocols 0 to 5 and as Python 2
wrote them, and nothing else. It imports nothing and calls nothing but what is below.

    read       None, bool, int (64 bits), bytes (also for a bytearray), str, list, tuple
    read       numpy arrays and scalars of bool and whole numbers, as `PickledArray`, int and bool
    refused    every other name, dictionaries, sets, floats, objects, persistent and extension ids

Python 2's `str` is read as bytes. Every size is compared with the bytes at hand before it is
believed, and the number of opcodes is bounded by that of bytes: time and memory are a small
multiple of the file's size, whatever the file says.
"""

import codecs
import enum
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from manyface.base.errors import DataError

# An image as a numpy array takes 30 opcodes, beside at least 700 bytes of JPEG.
_FREE_OPCODES, _BYTES_PER_OPCODE = 500_000, 32
_MAX_DIGITS = 32  # of a number written as text; 64 bits have 20
_MAX_NAME = 200
_MAX_DIMENSIONS = 4
NEWEST_PROTOCOL = 5


@dataclass
class PickledArray:
    """A numpy array as it lies in a pickle; empty until its state has been read.

    Attributes:
        code: numpy's kind and bytes of an element: "u1", "b1", "i8" ...
        order: "<", ">" or "|" of elements.
        shape: of the array.
        data: the elements, C order (Fortran order where `is_fortran`).
    """

    code: str = "u1"
    order: str = "|"
    shape: tuple[int, ...] = (0,)
    data: bytes = b""
    is_fortran: bool = False

    def fill(self, dtype: "_Dtype", shape: Any, data: Any, *, is_fortran: bool) -> None:
        """Take over checked contents."""
        if not isinstance(data, bytes) or not _is_shape(shape):
            raise _Refused("an array that holds Python objects, or has no true shape")
        wanted = prod(shape) * dtype.num_bytes
        if wanted != len(data):
            raise _Refused(f"an array of {wanted} bytes that are {len(data)}")
        self.code, self.order, self.shape = dtype.code, dtype.order, shape
        self.data, self.is_fortran = data, is_fortran


def unpickle(data: bytes, where: str) -> Any:
    """The value that the pickle `data` holds; bytes after its end are ignored, as Python does.

    Args:
        data: the whole pickle.
        where: names it in messages.

    Raises:
        DataError: it is damaged, or holds something that is not read (it says what).
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except _Refused as refused:
        raise DataError(
            f"{where}, byte {machine.at}: holds {refused}; only lists of encoded images (bytes or "
            "numpy arrays) and answers are read from a pickle, and nothing in it is run"
        ) from None
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise DataError(
            f"{where}, byte {machine.at}: no pickle, or a damaged one ({_short(error)}); "
            "fetch the file again"
        ) from None


class _Refused(Exception):
    """Names what is not read."""


class _Name(enum.Enum):
    """Names that a pickle may use, each with a meaning of ours in `_called`."""

    RECONSTRUCT = "an empty array"
    SCALAR = "a numpy scalar"
    FROM_BUFFER = "an array over bytes"
    NDARRAY = "the class of arrays"
    DTYPE = "a dtype"
    ENCODE = "str -> bytes"
    BYTES = "bytes"
    BYTEARRAY = "bytearray"


_NAMES = {
    **{("numpy" + core + ".multiarray", "_reconstruct"): _Name.RECONSTRUCT
       for core in (".core", "._core")},
    **{("numpy" + core + ".multiarray", "scalar"): _Name.SCALAR for core in (".core", "._core")},
    **{("numpy" + core + ".numeric", "_frombuffer"): _Name.FROM_BUFFER
       for core in (".core", "._core")},
    ("numpy", "ndarray"): _Name.NDARRAY,
    ("numpy", "dtype"): _Name.DTYPE,
    ("_codecs", "encode"): _Name.ENCODE,  # Python 3 writes bytes so where Python 2 is to read
    **{(module, "bytes"): _Name.BYTES for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _Name.BYTEARRAY for module in ("builtins", "__builtin__")},
}  # fmt: skip


@dataclass
class _Dtype:
    code: str
    order: str = "|"

    @property
    def num_bytes(self) -> int:
        return int(self.code[1:])


class _Machine:
    """Stack, marks and memo, and the place in the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: dict[int, Any] = {}
        self._copied = 0

    def run(self) -> Any:
        data, opcodes = self.data, _OPCODES
        most = _FREE_OPCODES + len(data) // _BYTES_PER_OPCODE
        for _ in range(most):
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                return self.pop()
            opcodes[code](self)
        raise _Refused(f"more than {most} instructions")

    # --- reading ----------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.at + count
        if not self.at <= end <= len(self.data):
            raise ValueError(f"{count} bytes are promised, {len(self.data) - self.at} are left")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, form: str, count: int) -> int:
        return int(struct.unpack(form, self.take(count))[0])

    def line(self, most: int) -> bytes:
        """The rest of the line, without its end."""
        end = self.data.find(b"\n", self.at, self.at + most + 1)
        if end < 0:
            raise ValueError("a line without an end")
        part = self.data[self.at : end]
        self.at = end + 1
        return part

    # --- stack ------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise IndexError("an instruction misses its operand")
        return self._stack[-1]

    def pop(self) -> Any:
        value = self.top()
        del self._stack[-1]
        return value

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_to_mark(self) -> list[Any]:
        height = self._marks.pop()
        items = self._stack[height:]
        del self._stack[height:]
        return items

    def extend_list(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise _Refused("an appending to something that is no list")
        target.extend(items)

    def push_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    # --- memo -------------------------------------------------------------------------------------

    def remember(self, index: int | None = None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.top()

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    # --- names ------------------------------------------------------------------------------------

    def push_name(self, module: Any, name: Any) -> None:
        are_texts = isinstance(module, str) and isinstance(name, str)
        known = _NAMES.get((module, name)) if are_texts else None
        if known is None:
            raise _Refused(f"{_printable(module)}.{_printable(name)}")
        self.push(known)

    def call(self) -> None:
        """REDUCE."""
        arguments, function = self.pop(), self.pop()
        self.push(_called(function, arguments))
        made = self._stack[-1]
        if isinstance(made, bytes):
            self._copied += len(made)  # else one str in the memo becomes a thousand copies
            if self._copied > 2 * len(self.data):
                raise _Refused("one text many times over")

    def build(self) -> None:
        """BUILD: the state of an array or of a dtype."""
        state, target = self.pop(), self.top()
        match target, state:
            case PickledArray(), (_, shape, _Dtype() as dtype, is_fortran, raw):
                target.fill(dtype, shape, raw, is_fortran=is_fortran is True or is_fortran == 1)
            case _Dtype(), (_, str() | bytes() as order, None, None, None, *_):
                target.order = _dtype(_text(order)[:1] + target.code).order
            case _:
                raise _Refused("the state of an object, or of an array of structures")


def _called(function: Any, arguments: Any) -> Any:
    """What `function(*arguments)` of the few that are known would give."""
    match function, arguments:
        case _Name.RECONSTRUCT, (_Name.NDARRAY, _, _):
            return PickledArray()
        case _Name.FROM_BUFFER, (raw, _Dtype() as dtype, shape, order):
            array = PickledArray()
            array.fill(dtype, shape, raw, is_fortran=order == "F")
            return array
        case _Name.DTYPE, (str() | bytes() as code, *_):
            return _dtype(_text(code))
        case _Name.SCALAR, (_Dtype() as dtype, bytes() as raw):
            return _scalar(dtype, raw)
        case _Name.ENCODE, (str() as text, "latin1" | "latin-1" as form):
            return text.encode(form)
        case _Name.BYTES | _Name.BYTEARRAY, ():
            return b""
        case _Name.BYTEARRAY, (bytes() as raw,):
            return raw
        case _Name.BYTEARRAY, (str() as text, "latin-1" as form):
            return text.encode(form)
    raise _Refused("a call of something that is no part of an array")


def _dtype(code: str) -> _Dtype:
    found = re.fullmatch(r"([<>|=]?)(b1|[iu][1248])", code)
    if not found:
        raise _Refused(f"an array of {_printable(code)}")
    return _Dtype(found[2], found[1] or "|")


def _scalar(dtype: _Dtype, raw: bytes) -> int:
    if len(raw) != dtype.num_bytes:
        raise _Refused(f"a number of {dtype.num_bytes} bytes that are {len(raw)}")
    value = int.from_bytes(
        raw, "big" if dtype.order == ">" else "little", signed=dtype.code[0] == "i"
    )
    return bool(value) if dtype.code == "b1" else value


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= _MAX_DIMENSIONS
        and all(type(size) is int and size >= 0 for size in shape)
    )


# --- values that are written as text --------------------------------------------------------------

# Possessive: never goes back, so neither time nor memory grows faster than the text.
_ESCAPED = re.compile(rb"""(?:[^\\]++|\\(?:x[0-9a-fA-F]{2}|[\\'"nrt]))*+""")


def _quoted(line: bytes) -> bytes:
    """The bytes that Python 2's repr wrote as `line`."""
    line = line.strip()
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise ValueError("a text without quotes")
    if not _ESCAPED.fullmatch(line, 1, len(line) - 1):  # others are warned of by escape_decode
        raise ValueError("a text with an escape that Python 2 does not write")
    return codecs.escape_decode(line[1:-1])[0]


def _whole_number(line: bytes) -> int:
    """ "00" and "01" are False and True, "12L" is Python 2's long."""
    if line in (b"00", b"01"):
        return line == b"01"
    return _within_64_bits(int(line.removesuffix(b"L")))


def _within_64_bits(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 64:
        raise _Refused("a number of more than 64 bits")
    return value


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _printable(value: Any) -> str:
    return ascii(value)[1:-1][:_MAX_NAME] if isinstance(value, str) else type(value).__name__


def _short(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "it recalls what it has not kept"
    if isinstance(error, IndexError) and not str(error).startswith("an "):
        return "it ends too early"
    return f"{type(error).__name__}: {error}"[:_MAX_NAME]


# --- instructions ---------------------------------------------------------------------------------


def _protocol(machine: _Machine) -> None:
    version = machine.take(1)[0]
    if version > NEWEST_PROTOCOL:
        raise _Refused(f"protocol {version}, which nobody knows yet")


def _global(machine: _Machine) -> None:
    module, name = machine.line(_MAX_NAME), machine.line(_MAX_NAME)
    machine.push_name(module.decode(), name.decode())


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_name(module, name)


def _long(machine: _Machine) -> None:
    raw = machine.take(machine.take(1)[0])
    machine.push(_within_64_bits(int.from_bytes(raw, "little", signed=True)))


def _append(machine: _Machine) -> None:
    item = machine.pop()
    machine.extend_list([item])


def _sized(form: str, count: int) -> Callable[[_Machine], bytes]:
    """Bytes after their length of `count` bytes."""
    return lambda machine: machine.take(machine.number(form, count))


def _pushes(read: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(read(machine))


def _refuses(what: str) -> Callable[[_Machine], None]:
    def refuse(machine: _Machine) -> None:
        raise _Refused(what)

    return refuse


_U1, _U4, _I4, _U8 = ("<B", 1), ("<I", 4), ("<i", 4), ("<Q", 8)
_STOP = ord(".")
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda machine: machine.take(8),  # FRAME: a hint on reading ahead
    # constants
    b"N": _pushes(lambda machine: None),
    b"\x88": _pushes(lambda machine: True),
    b"\x89": _pushes(lambda machine: False),
    b"I": _pushes(lambda machine: _whole_number(machine.line(_MAX_DIGITS))),
    b"L": _pushes(lambda machine: _whole_number(machine.line(_MAX_DIGITS))),
    b"J": _pushes(lambda machine: machine.number(*_I4)),
    b"K": _pushes(lambda machine: machine.take(1)[0]),
    b"M": _pushes(lambda machine: machine.number("<H", 2)),
    b"\x8a": _long,
    # bytes and text
    b"S": _pushes(lambda machine: _quoted(machine.line(len(machine.data)))),
    b"T": _pushes(_sized(*_I4)),
    b"U": _pushes(_sized(*_U1)),
    b"B": _pushes(_sized(*_U4)),
    b"C": _pushes(_sized(*_U1)),
    b"\x8e": _pushes(_sized(*_U8)),
    b"\x96": _pushes(_sized(*_U8)),
    b"V": _pushes(lambda machine: machine.line(len(machine.data)).decode("raw-unicode-escape")),
    b"X": _pushes(lambda machine: _sized(*_U4)(machine).decode()),
    b"\x8c": _pushes(lambda machine: _sized(*_U1)(machine).decode()),
    b"\x8d": _pushes(lambda machine: _sized(*_U8)(machine).decode()),
    # lists and tuples
    b"]": _pushes(lambda machine: []),
    b"l": lambda machine: machine.push(machine.pop_to_mark()),
    b"a": _append,
    b"e": lambda machine: machine.extend_list(machine.pop_to_mark()),
    b")": _pushes(lambda machine: ()),
    b"t": lambda machine: machine.push(tuple(machine.pop_to_mark())),
    b"\x85": lambda machine: machine.push_tuple(1),
    b"\x86": lambda machine: machine.push_tuple(2),
    b"\x87": lambda machine: machine.push_tuple(3),
    # stack and memo
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_to_mark,
    b"2": _pushes(_Machine.top),
    b"g": lambda machine: machine.recall(int(machine.line(_MAX_DIGITS))),
    b"h": lambda machine: machine.recall(machine.take(1)[0]),
    b"j": lambda machine: machine.recall(machine.number(*_U4)),
    b"p": lambda machine: machine.remember(int(machine.line(_MAX_DIGITS))),
    b"q": lambda machine: machine.remember(machine.take(1)[0]),
    b"r": lambda machine: machine.remember(machine.number(*_U4)),
    b"\x94": _Machine.remember,
    # arrays
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _Machine.call,
    b"b": _Machine.build,
    # what verification sets have no use for
    **dict.fromkeys((b"i", b"o", b"\x81", b"\x92"), _refuses("an object of some class")),
    **dict.fromkeys((b"P", b"Q"), _refuses("a persistent id")),
    **dict.fromkeys((b"\x82", b"\x83", b"\x84"), _refuses("an extension code")),
    **dict.fromkeys((b"}", b"d", b"s", b"u"), _refuses("a dictionary")),
    **dict.fromkeys((b"\x8f", b"\x90", b"\x91"), _refuses("a set")),
    **dict.fromkeys((b"F", b"G"), _refuses("a fraction")),
    **dict.fromkeys((b"\x97", b"\x98"), _refuses("a buffer outside of the pickle")),
    b"\x8b": _refuses("a number of more than 64 bits"),
}


def _unknown(machine: _Machine) -> None:
    code = machine.data[machine.at - 1]
    raise ValueError(f"{code:#04x} is no instruction")


_OPCODES = [_INSTRUCTIONS.get(bytes([code]), _unknown) for code in range(256)]

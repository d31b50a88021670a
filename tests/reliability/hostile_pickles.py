"""Pickles to harm a reader with: mutations of good ones, and ones that were written for it.

Run as a program, it reads `count` cases and prints what happened as JSON. An audit hook counts what
a reader has no business doing: commands, processes, code, imports, files opened to write.
"""

import json
import pickle
import random
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from own_memory import peak_bytes

PROTOCOLS = range(6)
MARKER = "harmed"
LARGE = 4_000_000  # bytes of the large ones


class Calls:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        return self._call


def good_sets() -> list[bytes]:
    """The ways in which verification sets are written."""
    images = [b"\xff\xd8" + bytes(range(k, k + 40)) for k in range(6)]
    arrays = [np.frombuffer(image, np.uint8).copy()[:, None] for image in images]
    mixed = [images[0], arrays[1], images[0], bytearray(images[2]), arrays[1], b""]
    found = []
    for protocol in PROTOCOLS:
        found.append(pickle.dumps((images, [True, False, True]), protocol))
        found.append(pickle.dumps([arrays, [np.bool_(True), np.bool_(False), 1]], protocol))
        found.append(pickle.dumps((mixed, np.array([1, 0, 1], ">i4")), protocol))
    # Python 2: str as STRING, SHORT_BINSTRING, BINSTRING
    found.append(b"((lp0\nS'\\xff\\xd8\\n'\np1\naS'b'\na(lp2\nI01\natp3\n.")
    found.append(b"(]q\x00(U\x03\xff\xd8\nU\x01be]q\x02I01\natq\x03.")
    found.append(b"\x80\x02]q\x00(T\x03\x00\x00\x00\xff\xd8\nU\x01be]q\x02\x88a\x86q\x03.")
    return found


def harmful() -> list[bytes]:
    """Those that run something, where a reader lets them."""
    touch = f"open({MARKER!r}, 'w')"
    calls = [
        (eval, (touch,)),
        (exec, (touch,)),
        (open, (MARKER, "w")),
        (getattr, (Calls(__import__, ("os",)), "system")),
        (__import__, ("antigravity",)),
    ]
    found = [pickle.dumps(Calls(*call), protocol) for call in calls for protocol in PROTOCOLS]
    command = f"touch {MARKER}".encode()
    short = bytes([len(command)]) + command
    found += [
        b"cos\nsystem\n(S'" + command + b"'\ntR.",
        b"(S'" + command + b"'\nios\nsystem\n.",
        b"(cos\nsystem\nS'" + command + b"'\no.",
        b"\x80\x02cposix\nsystem\nU" + short + b"\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + short + b"\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + short + b"\x85\x81.",
        b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93\x8c" + short + b"\x85R.",
        b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncos\nsystem\nK\x00\x85U\x01b\x87R.",
        b"\x80\x02c_codecs\ndecode\nU\x01xU\x06base64\x86R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x06\x00\x00\x00base64\x86R.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02P1\n.",
        b"\x80\x02N}bU\x01aQ.",
    ]
    return found


_HUGE = struct.pack("<I", 0xFFFFFFFF)
_HUGER = struct.pack("<Q", 1 << 62)
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
_DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"


def bombs(size: int = 100_000) -> dict[str, bytes]:
    """Small or not so small ones that ask for much: memory, time or depth; `size` of their core."""
    text = b"\x80\x04X" + struct.pack("<I", size) + b"a" * size + b"\x94"
    encode = b"c_codecs\nencode\n\x94X\x06\x00\x00\x00latin1\x94"
    return {
        "bytes": b"\x80\x04B" + _HUGE + b"a",
        "bytes8": b"\x80\x04\x8e" + _HUGER + b"a",
        "bytearray8": b"\x80\x05\x96" + _HUGER + b"a",
        "text": b"\x80\x04\x8d" + _HUGER + b"a",
        "string": b"\x80\x02T\xff\xff\xff\x7fa",
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f",
        "digits": b"I" + b"9" * size + b"\n.",
        "frame": b"\x80\x04\x95" + _HUGER + b"N.",
        "memo": b"\x80\x02Nr" + _HUGE + b".",
        "memo as text": b"Np" + b"9" * 30 + b"\n.",
        "many memos": b"\x80\x02N" + b"".join(
            b"r" + struct.pack("<I", 7919 * k % 2**32) for k in range(size // 5)),
        "memoize": b"\x80\x04]" + b"\x94" * size + b".",
        "doubling": b"\x80\x02](" + b"2" * size + b"e.",
        "lists": b"\x80\x02" + b"]" * size + b".",
        "nothings": b"\x80\x02" + b"N0" * (size // 2) + b"N.",
        "marks": b"\x80\x02" + b"(" * size + b".",
        "deep tuples": b"\x80\x02N" + b"\x85" * size + b".",
        "deep lists": b"\x80\x02" + b"]" * size + b"a" * (size - 1) + b".",
        "deep marks": b"(" * size + b"t" * size + b".",
        "laughs": b"\x80\x02]q\x00" + b"".join(
            b"](" + bytes([104, k]) * 10 + bytes([101, 113, k + 1]) for k in range(200)) + b".",
        "itself": b"\x80\x02]q\x00h\x00ah\x00a.",
        "pair of itself": b"\x80\x02]q\x00(h\x00h\x00e.",
        "images of itself": b"\x80\x02]q\x00h\x00a]\x88a\x86.",
        "one text a thousand times": text + encode + b"](" + b"h\x01h\x00h\x02\x86R" * 1000 + b"e.",
        "one image a thousand times": b"\x80\x04B" + struct.pack("<I", size) + b"a" * size
        + b"\x940](" + b"h\x00" * 2000 + b"e](" + b"\x88" * 1000 + b"e\x86.",
        "an array of much": b"\x80\x02" + _ARRAY + b"(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"
        + _DTYPE + b"\x89U\x01atb.",
        "an array of less than nothing": b"\x80\x02" + _ARRAY + b"(K\x01J\xff\xff\xff\xff\x85"
        + _DTYPE + b"\x89U\x01atb.",
        "an array of many dimensions": b"\x80\x02" + _ARRAY + b"(K\x01(" + b"K\x01" * 9999 + b"t"
        + _DTYPE + b"\x89U\x01atb.",
        "a bytearray many times over": b"\x80\x05\x96" + struct.pack("<Q", size) + b"a" * size
        + b"\x94" + _ARRAY + b"\x94" + _DTYPE + b"\x940(" + b"h\x01(K\x01(J"
        + struct.pack("<I", size) + b"th\x02\x89h\x00tb" * 300 + b"t.",
        "many arrays": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01"
        + b"](" + b"h\x00h\x01NN\x87R" * (size // 8) + b"e.",
        "escapes": b"S'" + b"\\xff" * (size // 4) + b"'\n.",
        "no end of a line": b"S'" + b"a" * size,
        "opposite of a name": b"c" + b"a" * size + b"\n" + b"b" * size + b"\n.",
    }  # fmt: skip


_OPCODES = bytes(range(256))
_SIZES = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00")


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """`data` with one to four small changes."""
    raw = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(len(raw) + 1), draw.randrange(8)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(raw):
            raw[at] = draw.choice(_OPCODES)
        elif kind == 2:
            del raw[at:]
        elif kind == 3:
            del raw[at : at + draw.randint(1, 20)]
        elif kind == 4:
            raw[at:at] = bytes([draw.choice(_OPCODES)]) * draw.randint(1, 30)
        elif kind == 5:
            raw[at : at + 4] = draw.choice(_SIZES)
        elif kind == 6:
            start = draw.randrange(len(other) + 1)
            raw[at:at] = other[start : start + draw.randint(1, 60)]
        else:
            raw[at:at] = raw[at : at + draw.randint(1, 40)] * draw.randint(1, 50)
    return bytes(raw)


def cases(count: int, seed: int) -> Iterator[bytes]:
    """`count` cases; the same ones for the same seed."""
    draw = random.Random(seed)
    corpus = [*good_sets(), *harmful(), *bombs(300).values()]
    for _ in range(count):
        yield mutated(draw.choice(corpus), draw.choice(corpus), draw)


_FORBIDDEN = ("os.", "subprocess.", "exec", "compile", "import", "pickle.", "ctypes.", "socket.",
              "code.", "shutil.", "tempfile.", "marshal.")  # fmt: skip


def watch() -> list[str]:
    """Names of forbidden events from now on."""
    events: list[str] = []

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        writes = name == "open" and not str(arguments[1] or "r").startswith("r")
        if writes or name.startswith(_FORBIDDEN):
            events.append(f"{name} {str(arguments)[:80]}")

    sys.addaudithook(hook)
    return events


def main(count: int, seed: int) -> dict[str, Any]:
    from manyface.base.errors import DataError
    from manyface.data.bin_file import parse_bin

    given = [*good_sets(), *harmful(), *bombs().values(), *bombs(LARGE).values()]
    for data in given[:80]:  # what is imported once, by whatever decodes text first
        with suppress(DataError):
            parse_bin(data, "x")
    outcome: dict[str, Any] = {"read": 0, "refused": 0, "tracebacks": [], "slowest": 0.0}
    events = watch()
    for stage in (given, cases(count, seed)):
        for number, data in enumerate(stage):
            start = time.process_time()
            try:
                parse_bin(data, "x")
                outcome["read"] += 1
            except DataError:
                outcome["refused"] += 1
            except BaseException as error:
                outcome["tracebacks"].append(f"{number}: {error!r}"[:300] + f" {data[:300].hex()}")
            outcome["slowest"] = max(outcome["slowest"], time.process_time() - start)
    peak = peak_bytes() / (1 << 20)
    return {**outcome, "peak_mib": peak, "events": events}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))

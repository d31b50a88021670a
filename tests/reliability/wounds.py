"""Small damage to bytes, as fuzzers do it; a pure function of the generator."""

import random
import struct

WORDS = (0, 1, 2, 3, 23, 24, 25, 28, 0xCED7230A, 1 << 29, 2 << 29, 3 << 29, (1 << 29) - 1,
         0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7F800000, 0x7FC00000, 0x7F800001)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four wounds."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if damaged:
            _wound(damaged, rng)
    return bytes(damaged)


def _wound(data: bytearray, rng: random.Random) -> None:
    place, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, rng.randint(1, 200)))
    kind = rng.randrange(8)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place] = rng.randrange(256)
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        del data[place : place + length]
    elif kind == 4:
        data[place:place] = rng.randbytes(length)
    elif kind == 5:
        data[place:place] = data[place : place + length] * rng.randint(1, 20)
    elif kind == 6:
        place -= place % 4
        data[place : place + 4] = struct.pack("<I", rng.choice(WORDS))
    else:
        data[place : place + 4] = struct.pack(">I", rng.choice(WORDS))

"""RecordIO files with damage in them, read under an audit hook: a program of its own, because a
hook cannot be taken away again.

    python fuzz_recordio.py FOLDER FIRST COUNT

Case k is a pure function of k. Prints one JSON object: cases that ended in something else than a
set or a DataError, that took more than 2 seconds, or that did what a reader has no business to do.
"""

import json
import os
import random
import shutil
import struct
import sys
import time
import traceback
from pathlib import Path

from own_memory import peak_bytes

from manyface.base.errors import DataError
from manyface.data.records.index import build_index
from manyface.data.records.indexed import IndexedRecords
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import HEADER, frame
from manyface.data.records.recordio_writer import RecordIOWriter

MAGIC = struct.pack("<I", 0xCED7230A)
SECONDS = 2.0
FORBIDDEN = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.Popen",
             "exec", "compile", "import", "pickle.find_class", "socket.connect", "os.remove",
             "os.rename", "os.mkdir", "shutil.rmtree", "ctypes.dlopen")  # fmt: skip
WORDS = (0, 1, 2, 3, 23, 24, 25, 28, 0xCED7230A, 1 << 29, 2 << 29, 3 << 29, (1 << 29) - 1,
         0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7F800000, 0x7FC00000, 0x7F800001)  # fmt: skip
NUMBERS = (b"0", b"4", b"8", b"-4", b"7", b"1e5", b"18446744073709551615", b"9223372036854775807",
           b"99999999999999999999999", b"nan", b"\xff\xfe", b"", b"9" * 5000)  # fmt: skip

armed = False
events: list[str] = []


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if armed and event.startswith(FORBIDDEN):
        events.append(f"{event} {arguments!r:.200}")
    elif armed and event == "open" and set(str(arguments[1] or "r")) & set("wax+"):
        events.append(f"open {arguments!r:.200}")


def seeds(folder: Path, rng: random.Random) -> Path:
    """A small set as packers write it, of one of both flavours."""
    path = folder / "train.rec"
    people = rng.randint(1, 4)
    names = [f"p{k}" for k in range(people)]
    writer = RecordIOWriter(path, identity_names=names, headers=rng.random() < 0.5)
    for person in range(people):
        for number in range(rng.randint(1, 4)):
            image = b"\xff\xd8" + rng.randbytes(rng.randint(0, 60))
            if rng.random() < 0.3:
                image += MAGIC * rng.randint(1, 3) + rng.randbytes(rng.randint(0, 9))
            writer.add(image, person=person, name=f"{number}.jpg")
    writer.finish()
    if rng.random() < 0.3:
        label = struct.unpack("<f", struct.pack("<I", rng.choice(WORDS)))[0]
        with path.open("ab") as file:
            file.write(frame(HEADER.pack(rng.choice(WORDS), label, 0, 0) + rng.randbytes(20)))
    for suffix in (".idx", ".lst"):
        if rng.random() < 0.3:
            path.with_suffix(suffix).unlink()
    return path


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four wounds."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        size = len(damaged)
        if not size:
            return bytes(damaged)
        place, length = rng.randrange(size), rng.choice((1, 2, 4, 8, rng.randint(1, 200)))
        kind = rng.randrange(8)
        if kind == 0:
            damaged[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[place] = rng.randrange(256)
        elif kind == 2:
            del damaged[place:]
        elif kind == 3:
            del damaged[place : place + length]
        elif kind == 4:
            damaged[place:place] = rng.randbytes(length)
        elif kind == 5:
            damaged[place:place] = damaged[place : place + length] * rng.randint(1, 20)
        elif kind == 6:
            place -= place % 4
            damaged[place : place + 4] = struct.pack("<I", rng.choice(WORDS))
        else:  # a word behind a magic number: lengths, flags
            found = damaged.find(MAGIC, place)
            if found >= 0:
                at = found + 4 * rng.randint(1, 9)
                damaged[at : at + 4] = struct.pack("<I", rng.choice(WORDS))
    return bytes(damaged)


def mutated_text(data: bytes, rng: random.Random) -> bytes:
    """An `.idx` or `.lst` with other numbers, lines lost, doubled or in another order."""
    lines = data.split(b"\n")
    kind = rng.randrange(6)
    place = rng.randrange(len(lines))
    if kind == 0:
        fields = lines[place].split(b"\t")
        fields[rng.randrange(len(fields))] = rng.choice(NUMBERS)
        lines[place] = b"\t".join(fields)
    elif kind == 1:
        del lines[place]
    elif kind == 2:
        lines.insert(place, lines[rng.randrange(len(lines))])
    elif kind == 3:
        rng.shuffle(lines)
    elif kind == 4:
        lines[place] = lines[place].replace(b"\t", rng.choice((b"", b" ", b"\t\t", b"\0")))
    else:
        return mutated(data, rng)
    return b"\n".join(lines)


def make_case(folder: Path, number: int) -> Path:
    """Write the files of case `number`."""
    rng = random.Random(number)
    path = seeds(folder, rng)
    target = rng.choice((".rec", ".rec", ".rec", ".idx", ".idx", ".lst", "all"))
    for suffix in (".rec", ".idx", ".lst"):
        file = path.with_suffix(suffix)
        if file.exists() and target in (suffix, "all"):
            change = mutated if suffix == ".rec" else mutated_text
            file.write_bytes(change(file.read_bytes(), rng))
    return path


def read_case(path: Path) -> None:
    """What a run does with a set; raises nothing but DataError."""
    store = RecordIOStore(path)
    records = IndexedRecords(store, index=build_index(store), warn=lambda text: None)
    starts = records.first_images.tolist()
    assert starts == sorted(starts)
    assert starts[-1] == len(records)
    for i in range(len(records)):
        records.file_name(i)
        records.describe(i)
        try:
            image = records.read(i)
        except OSError:
            continue
        assert len(image) == records.index.sizes[records.index.in_storage(i)]
    assert len(set(records.identity_names)) == len(records.identity_names)
    store.unlisted(lambda done, total: None)


def run_case(folder: Path, number: int) -> dict[str, object] | None:
    """None, or what was wrong with the case."""
    global armed
    folder.mkdir()
    path = make_case(folder, number)
    events.clear()
    wrong = None
    start = time.perf_counter()
    armed = True
    try:
        read_case(path)
    except DataError:
        pass
    except BaseException:
        armed = False
        wrong = traceback.format_exc()
    armed = False
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    if wrong or events or seconds > SECONDS:
        return {"case": number, "error": wrong, "events": list(events), "seconds": seconds}
    return None


def main() -> None:
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    os.fsync = lambda descriptor: None  # a disk that is waited for is all that the cases cost
    run_case(folder / "warm", 0)  # what is imported late is imported now
    sys.addaudithook(hook)
    found = [run_case(folder / "case", number) for number in range(first, first + count)]
    failures = [each for each in found if each is not None]
    memory = peak_bytes()
    facts = {"cases": count, "num_failures": len(failures), "failures": failures[:5]}
    print(json.dumps({**facts, "max_rss": memory}))


if __name__ == "__main__":
    main()

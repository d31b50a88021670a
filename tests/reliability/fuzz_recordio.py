"""RecordIO files with damage in them (fuzzing.py)."""

import random
import struct
from pathlib import Path

from wounds import WORDS, mutated

from manyface.data.records.index import build_index
from manyface.data.records.indexed import IndexedRecords
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import HEADER, frame
from manyface.data.records.recordio_writer import RecordIOWriter

MAGIC = struct.pack("<I", 0xCED7230A)
NUMBERS = (b"0", b"4", b"8", b"-4", b"7", b"1e5", b"18446744073709551615", b"9223372036854775807",
           b"99999999999999999999999", b"nan", b"\xff\xfe", b"", b"9" * 5000)  # fmt: skip


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


def mutated_records(data: bytes, rng: random.Random) -> bytes:
    """Of half of them a word behind a magic number: lengths, flags."""
    damaged = bytearray(mutated(data, rng))
    found = damaged.find(MAGIC, rng.randrange(len(damaged) or 1))
    if found >= 0 and rng.random() < 0.5:
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
            change = mutated_records if suffix == ".rec" else mutated_text
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

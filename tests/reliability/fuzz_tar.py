"""Tar files with damage in them, of labelled samples and of folders of persons (fuzzing.py)."""

import io
import json
import random
import tarfile
from contextlib import suppress
from pathlib import Path

from wounds import mutated

from manyface.data.records import TarRecords
from manyface.data.records.index import build_index
from manyface.data.records.indexed import IndexedRecords
from manyface.data.records.shards import ShardStore

JPEG = b"\xff\xd8"
WORDS = (b"\\ud800", b"-1", b"1e999", b"null", b"[[[[", b'"', b"\xff\xfe", b"{}", b"9" * 400)


def as_tar(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return buffer.getvalue()


def labelled(rng: random.Random) -> list[tuple[str, bytes]]:
    """Samples, of one in four the text of a label or of a .json harmed."""
    members = []
    for i in range(12):
        about = json.dumps({"person": f"p{i % 3}", "name": "x"}).encode()
        parts = {"jpg": JPEG * i * 60, "cls": b"%d" % (i % 3), "json": about}
        if rng.random() < 0.25:
            part = rng.choice(("cls", "json"))
            parts[part] = mutated(parts[part].replace(b"x", rng.choice(WORDS)), rng)
        members += [(f"{i:03d}.{suffix}", data) for suffix, data in parts.items()]
    return members


def persons(rng: random.Random) -> list[tuple[str, bytes]]:
    return [(f"p{i % 3}/{'n' * 150 * (i % 2)}{i}.jpg", JPEG * i * 60) for i in range(12)]


def damaged(raw: bytes, rng: random.Random) -> bytes:
    data = bytearray(raw)
    if rng.random() < 0.2:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice((1, 5, 50))):
        at = rng.randrange(len(data))
        if rng.random() < 0.7:  # a header
            at = at // 512 * 512 + rng.choice((rng.randrange(512), rng.randrange(100, 160)))
        data[min(at, len(data) - 1)] = rng.choice((0, 255, 128, rng.randrange(256), ord("7")))
    if rng.random() < 0.5:
        mend_checksums(data)
    return bytes(data)


def mend_checksums(data: bytearray) -> None:
    """Of every block that looks like a header: so that the damage is believed."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            header = data[at : at + 512]
            total = sum(header[:148]) + sum(header[156:]) + 256
            data[at + 148 : at + 156] = b"%06o\0 " % total


def make_case(folder: Path, number: int) -> Path:
    rng = random.Random(number)
    raw = as_tar(rng.choice((labelled, persons))(rng))
    path = folder / "a.tar"
    path.write_bytes(raw if rng.random() < 0.2 else damaged(raw, rng))
    return path


def read_case(path: Path) -> None:
    """As `open_records` does, but for the index, which it would write."""
    store = ShardStore.recognise(path, path.read_bytes()[:512])
    if store is None:
        records = TarRecords(path, warn=lambda text: None)
    else:
        records = IndexedRecords(store, index=build_index(store), warn=lambda text: None)
    for i in range(len(records)):
        records.file_name(i)
        records.describe(i)
        with suppress(OSError):
            records.read(i)
    assert len(set(records.identity_names)) == len(records.identity_names)

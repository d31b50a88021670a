"""Checkpoints with damage in them: manifest, tensors and state, also with hashes that are right
again, as who means harm would make them (fuzzing.py)."""

import json
import random
import struct
import tempfile
from functools import cache
from pathlib import Path

import torch
from wounds import mutated

from manyface.checkpoint import load, save
from manyface.checkpoint.hashing import BlockHash
from manyface.checkpoint.manifest import _spell

MANIFEST = "MANIFEST.json"
STEP = "step-00000003"
VALUES = (0, -1, 1 << 62, 1e308, None, "", "../x", "/etc/passwd", [], {}, [[]], True, "F32", "I64",
          "a" * 3000, [0, 1 << 60], [-5, 3])  # fmt: skip


@cache
def good() -> dict[str, bytes]:
    """The files of a small one."""
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "backbone": {"conv": torch.randn(3, 2, generator=draw), "count": torch.tensor(4)},
        "head": {"weight": torch.randn(5, 4, generator=draw).bfloat16()},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder), step=3, tensors=tensors, state={"position": {"step": 3}})
        return {file.name: file.read_bytes() for file in path.iterdir()}


def harmed_json(data: bytes, rng: random.Random) -> bytes:
    """One value somewhere in a JSON object exchanged, or one key."""
    tree = json.loads(data)
    place = tree
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    if isinstance(place, dict) and rng.random() < 0.2:
        place[str(rng.choice(VALUES))] = place.pop(key)
    else:
        place[key] = rng.choice(VALUES)
    return json.dumps(tree).encode()


def harmed_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something else."""
    length = struct.unpack("<Q", data[:8])[0]
    header = harmed_json(data[8 : 8 + length], rng)
    size = len(header) if rng.random() < 0.8 else rng.choice((0, 1 << 40, 1 << 63, 7))
    return struct.pack("<Q", size) + header + data[8 + length :]


def harmed(name: str, data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return mutated(data, rng)
    return (harmed_json if name.endswith(".json") else harmed_tensors)(data, rng)


def forged(files: dict[str, bytes], rng: random.Random) -> bytes:
    """A manifest that names the files as they are now, and itself."""
    body = json.loads(files[MANIFEST])
    for name, about in body["files"].items():
        hashed = BlockHash(body["block_bytes"])
        hashed.update(files[name])
        about |= {"bytes": len(files[name]), "xxh3": list(hashed.facts().hashes)}
    if rng.random() < 0.5:
        body = json.loads(harmed_json(json.dumps(body).encode(), rng))
    body.pop("xxh3", None)
    return _spell(body)


def make_case(folder: Path, number: int) -> Path:
    rng = random.Random(number)
    files = dict(good())
    name = rng.choice(sorted(files))
    files[name] = harmed(name, files[name], rng)
    if name != MANIFEST or rng.random() < 0.5:
        files[MANIFEST] = forged(files if name != MANIFEST else good(), rng)
    path = folder / STEP
    path.mkdir()
    for file, content in files.items():
        (path / file).write_bytes(content)
    return path


def read_case(path: Path) -> None:
    """Loaded, and every tensor looked at."""
    found = load(path)
    for members in found.tensors.values():
        for tensor in members.values():
            tensor.double().sum()
    json.dumps(found.state)

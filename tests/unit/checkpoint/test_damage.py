"""Whatever is wrong with a checkpoint is found before a tensor is returned, and the file named."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from processes import on_ranks

from manyface.base.errors import CheckpointError, DamagedCheckpointError
from manyface.checkpoint import RowShard, hashing, load, save
from manyface.checkpoint import load as load_checkpoint
from manyface.checkpoint import manifest as manifests
from manyface.parallel import Ranks, Shard
from manyface.train.state import newest_good

MANIFEST = "MANIFEST.json"
NUM_RANKS = 3


def write(folder: Path) -> None:
    """Steps 1 and 2, by three ranks, in blocks of 100 bytes."""
    hashing.SMALLEST_BLOCK = 100
    ranks = Ranks()
    shard = Shard.of(11, rank=ranks.rank, size=ranks.size)
    for step in (1, 2):
        draw = torch.Generator().manual_seed(step)
        rows = torch.randn(11, 5, generator=draw)
        mine = slice(shard.start, shard.stop)
        head = {
            "weight": RowShard(rows[mine], shard),
            "last_step": RowShard(torch.arange(11)[mine] + step, shard),
            "count": torch.tensor(step),
        }
        net = {"conv": torch.randn(7, 3, generator=draw)}
        save(folder, step=step, tensors={"backbone": net, "head": head}, state={"a": step})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    on_ranks(write, NUM_RANKS, folder)
    return folder


def files_of(path: Path) -> list[Path]:
    return sorted(path.iterdir())


# Each damages the checkpoint `path` (step 2; step 1 lies beside it) and returns names of which one
# is to be in the error.


def flip_a_bit(path: Path, draw: random.Random) -> list[str]:
    file = draw.choice(files_of(path))
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return [file.name]


def cut(path: Path, draw: random.Random) -> list[str]:
    file = draw.choice(files_of(path))
    content = file.read_bytes()
    file.write_bytes(content[: draw.randrange(len(content))])
    return [file.name]


def lengthen(path: Path, draw: random.Random) -> list[str]:
    file = draw.choice(files_of(path))
    file.write_bytes(file.read_bytes() + draw.randbytes(draw.randint(1, 200)))
    return [file.name]


def swap_two(path: Path, draw: random.Random) -> list[str]:
    one, other = draw.sample(sorted(path.glob("head-*")), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return [one.name, other.name]


def take_from_another_step(path: Path, draw: random.Random) -> list[str]:
    file = draw.choice(files_of(path))
    shutil.copy(path.with_name("step-00000001") / file.name, file)
    return [file.name]


def remove(path: Path, draw: random.Random) -> list[str]:
    file = draw.choice(files_of(path))
    file.unlink()
    return [file.name]


def add(path: Path, draw: random.Random) -> list[str]:
    name = draw.choice(["head-3-of-4.safetensors", "other.safetensors", "x", ".hidden", "folder"])
    if name == "folder":
        (path / name).mkdir()
    else:
        shutil.copy(draw.choice(files_of(path)), path / name)
    return [name]


def zero_a_stretch(path: Path, draw: random.Random) -> list[str]:
    """As a disk does that never got the data."""
    file = draw.choice(files_of(path))
    content = bytearray(file.read_bytes())
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.randint(1, 300))
    if not any(content[start:stop]):
        start, stop = 0, len(content)
    content[start:stop] = bytes(stop - start)
    file.write_bytes(content)
    return [file.name]


def edit_manifest(path: Path, draw: random.Random) -> list[str]:
    """Without making its hash right."""
    file = path / MANIFEST
    text = file.read_text()
    old, new = draw.choice(
        [
            ('"step": 2', '"step": 1'),
            ('"ranks": 3', '"ranks": 2'),
            ('"block_bytes": 100', '"block_bytes": 200'),
            ("F32", "I32"),
            ("state.json", "../../state.json"),
            ("head-0-of-3", "head-1-of-3"),
            ("{", "[1, {"),
            ("  ", " "),
            ('"version": 2', '"version": 1'),
        ]
    )
    assert old in text
    file.write_text(text.replace(old, new))
    return [MANIFEST]


def forge(path: Path, change: Callable[[manifests.Manifest], manifests.Manifest]) -> None:
    """Another manifest whose hash is right."""
    content = manifests.render(change(manifests.read_manifest(path)))
    (path / MANIFEST).write_bytes(content)


def change_rows(path: Path, draw: random.Random) -> list[str]:
    """Rows that overlap, or leave a gap, with a manifest whose hash is right."""
    name = draw.choice(["weight", "last_step"])
    file = f"head-{draw.randrange(NUM_RANKS)}-of-3.safetensors"
    shift = draw.choice([(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1), (0, 9)])

    def change(manifest: manifests.Manifest) -> manifests.Manifest:
        facts = manifest.tables["head"][name]
        start, stop = (max(0, a + b) for a, b in zip(facts.rows[file], shift, strict=True))
        if (start, stop) == facts.rows[file]:
            stop += 1
        rows = {**facts.rows, file: (start, stop)}
        if draw.random() < 0.2:
            del rows[file]
        head = {**manifest.tables["head"], name: replace(facts, rows=rows)}
        return replace(manifest, tables={"head": head})

    forge(path, change)
    return [MANIFEST, "head-"]


def move_rows(path: Path, draw: random.Random) -> list[str]:
    """A tiling that is right and is not what the files hold."""
    name = draw.choice(["weight", "last_step"])

    def change(manifest: manifests.Manifest) -> manifests.Manifest:
        facts = manifest.tables["head"][name]
        ends = sorted(draw.sample(range(12), 2))
        if ends == [4, 8]:
            ends = [3, 8]
        bounds = zip([0, *ends], [*ends, 11], sorted(facts.rows), strict=True)
        rows = {file: (start, stop) for start, stop, file in bounds}
        head = {**manifest.tables["head"], name: replace(facts, rows=rows)}
        return replace(manifest, tables={"head": head})

    forge(path, change)
    return ["head-"]


def rename_table(path: Path, draw: random.Random) -> list[str]:
    def change(manifest: manifests.Manifest) -> manifests.Manifest:
        head = dict(manifest.tables["head"])
        name = draw.choice(sorted(head))
        facts = head.pop(name)
        if draw.random() < 0.7:
            head[draw.choice(["w", "count"])] = facts
        return replace(manifest, tables={"head": head})

    forge(path, change)
    return ["head-"]


def name_other_files(path: Path, draw: random.Random) -> list[str]:
    """Names that would lead out of the directory, with a hash that is right."""
    name = draw.choice(["../secret", "..", "/etc/passwd", ".hidden", "a/b", "a\\b", "", MANIFEST])

    def change(manifest: manifests.Manifest) -> manifests.Manifest:
        files = dict(manifest.files)
        files[name] = files.pop("state.json")
        return replace(manifest, files=files)

    forge(path, change)
    return [MANIFEST]


def call_it_another_step(path: Path, draw: random.Random) -> list[str]:
    forge(path, lambda manifest: replace(manifest, step=draw.choice([0, 1, 3, 10**9])))
    return [MANIFEST]


KINDS = (
    flip_a_bit,
    cut,
    lengthen,
    swap_two,
    take_from_another_step,
    remove,
    add,
    zero_a_stretch,
    edit_manifest,
    change_rows,
    move_rows,
    rename_table,
    name_other_files,
    call_it_another_step,
)


def refuse(good: Path, folder: Path, kind: Callable[..., list[str]], seed: int) -> None:
    """Damage a copy and see that it is refused, the file named, and the one before chosen."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(good, folder)
    path = folder / "step-00000002"
    names = kind(path, random.Random(seed))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    text = str(caught.value)
    assert any(name in text for name in names), f"{kind.__name__}: {text}"
    assert str(path) in text
    if isinstance(caught.value, DamagedCheckpointError):
        found = newest_good(folder)
        assert found is not None
        assert found.step == 1
        assert (folder / "damaged-step-00000002-0").is_dir()


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused(good: Path, tmp_path: Path, kind: Callable[..., list[str]]) -> None:
    load(good / "step-00000002")
    for seed in range(8):
        refuse(good, tmp_path / "copy", kind, seed)


@pytest.mark.slow
def test_a_thousand_damaged_checkpoints_of_a_thousand_are_refused(
    good: Path, tmp_path: Path
) -> None:
    for number in range(1000):
        refuse(good, tmp_path / "copy", KINDS[number % len(KINDS)], 1000 + number)


def load_all(path: Path) -> str:
    try:
        load_checkpoint(path)
    except DamagedCheckpointError as error:
        return str(error)
    return "nothing was noticed"


@pytest.mark.parametrize("kind", KINDS)
def test_all_ranks_refuse_with_the_same_words(
    good: Path, tmp_path: Path, kind: Callable[..., list[str]]
) -> None:
    shutil.copytree(good, tmp_path / "copy")
    path = tmp_path / "copy" / "step-00000002"
    kind(path, random.Random(7))
    found = on_ranks(load_all, 2, path)
    assert found[0] == found[1]
    assert found[0] != "nothing was noticed"

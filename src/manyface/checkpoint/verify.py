"""A checkpoint against its manifest, the work shared among ranks.

Names, sizes and the tiling of tables are looked at by every rank, the bytes once: block by block
by the rank whose rows they (mostly) are when rows are shared out as `Shard.of` does, so that a rank
that loads its k-th part of a table reads little more than that. Ranks read one file system.
"""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from manyface.base.errors import DamagedCheckpointError
from manyface.checkpoint.hashing import FileFacts, check_blocks, check_size
from manyface.checkpoint.layout import MANIFEST_NAME, TENSOR_SUFFIX, step_name, step_of
from manyface.checkpoint.manifest import DTYPES, Manifest, TableFacts
from manyface.parallel import Shard

Members = dict[str, TableFacts]


def verify(path: Path, manifest: Manifest, *, rank: int = 0, size: int = 1) -> None:
    """Check what is this rank's share of the checkpoint directory `path`.

    Raises DamagedCheckpointError naming the first file that is missing, extra, cut or changed, or
    holds other tensors than the manifest says.
    """
    check_listing(path, manifest)
    for name, blocks in _share(manifest, rank, size):
        check_blocks(path / name, manifest.files[name], blocks)
    for number, (name, members) in enumerate(sorted(_tables_by_file(manifest).items())):
        if number % size == rank:
            _check_tables(path / name, members)


def check_listing(path: Path, manifest: Manifest) -> None:
    """As `verify`, without reading the files: the step, which files there are, their sizes."""
    if manifest.step != step_of(path):
        raise DamagedCheckpointError(
            f"{path / MANIFEST_NAME} is of step {manifest.step}: expected it in a directory "
            f"{step_name(manifest.step)}, got {path.name}"
        )
    present = {entry.name for entry in path.iterdir()} - {MANIFEST_NAME}
    if missing := sorted(manifest.files.keys() - present):
        raise DamagedCheckpointError(f"{path / missing[0]} is missing")
    if extra := sorted(present - manifest.files.keys()):
        raise DamagedCheckpointError(f"{path / extra[0]} is not in the manifest")
    for name, facts in manifest.files.items():
        check_size(path / name, facts)


def _check_tables(path: Path, members: Members) -> None:
    """Raise if a file of rows holds other tables, or others rows of them, than are expected."""
    expected = {}
    for name, facts in members.items():
        start, stop = facts.rows[path.name]
        expected[name] = (facts.dtype, [stop - start, *facts.shape[1:]])
    with safe_open(path, "pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    found = {name: (each.get_dtype(), each.get_shape()) for name, each in slices.items()}
    if found != expected:
        raise DamagedCheckpointError(f"{path} holds {found}, its manifest says {expected}")


def _share(manifest: Manifest, rank: int, size: int) -> Iterator[tuple[str, list[int]]]:
    """File -> numbers of its blocks that `rank` of `size` checks; together all, each once."""
    tables, turn = _tables_by_file(manifest), 0
    for name, facts in sorted(manifest.files.items()):
        if name in tables:
            owners = _owners(name, facts, tables[name], size)
        else:
            owners = [(turn + block) % size for block in range(len(facts.hashes))]
            turn += len(owners)
        yield name, [block for block, owner in enumerate(owners) if owner == rank]


def _owners(name: str, facts: FileFacts, members: Members, size: int) -> list[int]:
    """The rank that checks each block of a file of rows: the owner of its first row.

    Where tables begin follows from the manifest, as the writer lays them out (stream.py).
    """
    ordered = sorted(members.items(), key=lambda one: (-DTYPES[one[1].dtype].itemsize, one[0]))
    counts = [table.rows[name][1] - table.rows[name][0] for _, table in ordered]
    sizes = [count * table.row_bytes() for count, (_, table) in zip(counts, ordered, strict=True)]
    begins = [facts.num_bytes - sum(sizes[number:]) for number in range(len(sizes))]
    owners = []
    for block in range(len(facts.hashes)):
        place = block * facts.block_bytes
        number = max(bisect_right(begins, place) - 1, 0)
        _, table = ordered[number]
        inside = max(place - begins[number], 0) // max(table.row_bytes(), 1)
        owners.append(_owner(table.rows[name][0] + inside, table.shape[0], size))
    return owners


def _owner(row: int, total: int, size: int) -> int:
    stops = [Shard.of(total, rank=rank, size=size).stop for rank in range(size)]
    return min(bisect_right(stops, row), size - 1)


def _tables_by_file(manifest: Manifest) -> dict[str, Members]:
    found: dict[str, Members] = {}
    for group in manifest.tables.values():
        for name, facts in group.items():
            for file in facts.rows:
                found.setdefault(file, {})[name] = facts
    return found


def group_files(manifest: Manifest) -> dict[str, str]:
    """Group -> the file of its tensors that no rank has a part of."""
    rows = _tables_by_file(manifest)
    return {
        name.removesuffix(TENSOR_SUFFIX): name
        for name in manifest.files
        if name.endswith(TENSOR_SUFFIX) and name not in rows
    }

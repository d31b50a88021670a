"""Imports point down: a room knows only the floors below it (docs/design.md, "The house")."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "manyface"
FLOORS = {
    0: ("base", "config"),
    1: ("margins", "backbones", "parallel", "kernels", "observe"),
    2: ("softmax", "centers", "data"),
    3: ("heads", "testing"),
    4: ("evaluate", "checkpoint", "compat"),
    5: ("train", "curate", "gallery"),
    6: ("report", "bench", "plan", "model"),
    7: ("studies",),
    8: ("cli",),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
# The recipe is read where it becomes objects, is measured, and is typed in, nowhere else.
READS_CONFIG = {"config", "train", "bench", "plan", "studies", "cli"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: Path) -> Iterator[str]:
    """Rooms that a module imports, inside functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("manyface."))


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= FLOOR_OF.keys(), "give the new room a floor here and in docs/design.md"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    # `import manyface` for the version is no room.
    for other in set(imported_rooms(path)) - {room, "__version__"}:
        allowed = FLOOR_OF[other] < FLOOR_OF[room] or (room, other) == ("config", "base")
        assert allowed, f"{room} (floor {FLOOR_OF[room]}) imports {other} ({FLOOR_OF[other]})"
        assert other != "config" or room in READS_CONFIG, f"{room} reads the recipe"


def test_importing_changes_no_global_state() -> None:
    program = (
        # rich.style draws a number when it is imported; that is not ours.
        "import os, random, threading, warnings; import numpy, rich.style, torch\n"
        "def state(): return (random.getstate(), numpy.random.get_state()[1].tolist(),\n"
        "    torch.get_rng_state().tolist(), torch.get_num_threads(), dict(os.environ),\n"
        "    threading.active_count(), warnings.filters[:], torch.get_default_dtype())\n"
        "before = state()\n"
        "import manyface, manyface.cli, manyface.train.run, manyface.report.page\n"
        "import manyface.model.export, manyface.model.onnx_read\n"
        "assert state() == before"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""

"""Checkpoints: directories that are whole or absent, and verified when read."""

from manyface.checkpoint.layout import committed, newest, read_pointer, step_of
from manyface.checkpoint.load import Checkpoint, load
from manyface.checkpoint.lock import run_lock
from manyface.checkpoint.retain import retain, set_aside, sweep
from manyface.checkpoint.save import replace_file, save, write_pointer

__all__ = [
    "Checkpoint",
    "committed",
    "load",
    "newest",
    "read_pointer",
    "replace_file",
    "retain",
    "run_lock",
    "save",
    "set_aside",
    "step_of",
    "sweep",
    "write_pointer",
]

"""Checkpoints: directories that are whole or absent, and verified when read."""

from manyface.checkpoint.background import AsyncSaver, Pause, own_ranks
from manyface.checkpoint.layout import (
    committed,
    newest,
    read_facts,
    read_pointer,
    step_name,
    step_of,
)
from manyface.checkpoint.load import Checkpoint, load
from manyface.checkpoint.lock import run_lock
from manyface.checkpoint.overview import Overview, find_checkpoint, overview
from manyface.checkpoint.replicas import check_replicas
from manyface.checkpoint.retain import retain, set_aside, sweep
from manyface.checkpoint.rewrite import export_weights, merge
from manyface.checkpoint.save import replace_file, save, write_pointer
from manyface.checkpoint.staging import bytes_to_stage
from manyface.checkpoint.tables import RowShard, StoredTable, local_rows
from manyface.checkpoint.together import by_first, together

__all__ = [
    "AsyncSaver",
    "Checkpoint",
    "Overview",
    "Pause",
    "RowShard",
    "StoredTable",
    "by_first",
    "bytes_to_stage",
    "check_replicas",
    "committed",
    "export_weights",
    "find_checkpoint",
    "load",
    "local_rows",
    "merge",
    "newest",
    "own_ranks",
    "overview",
    "read_facts",
    "read_pointer",
    "replace_file",
    "retain",
    "run_lock",
    "save",
    "set_aside",
    "step_name",
    "step_of",
    "sweep",
    "together",
    "write_pointer",
]

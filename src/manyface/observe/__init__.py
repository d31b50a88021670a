"""Watching a run: event log, memory meter, throughput, progress display, TensorBoard."""

from manyface.observe.events import EventLog, read_events
from manyface.observe.memory import MemoryMeter
from manyface.observe.progress import Progress, make_progress
from manyface.observe.throughput import Throughput

__all__ = [
    "EventLog",
    "MemoryMeter",
    "Progress",
    "Throughput",
    "make_progress",
    "read_events",
]

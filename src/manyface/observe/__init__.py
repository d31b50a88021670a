"""Watching a run: event log, memory meter, throughput; `progress` and `tensorboard` beside them, so
that heads, whose tables look at memory, need neither rich nor tensorboard."""

from manyface.observe.events import EventLog, read_events
from manyface.observe.memory import MemoryMeter
from manyface.observe.throughput import Throughput

__all__ = [
    "EventLog",
    "MemoryMeter",
    "Throughput",
    "read_events",
]

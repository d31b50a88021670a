"""Bookkeeping of the dynamic class pool: slots planned a batch at a time against an OrderedDict.

    python benchmarks/slots.py [--slots 1000000 --identities 10000000 --labels 1536 --steps 300]

A step is what F2C's two passes need: insert y and look x up, take it back, insert x and look y up.
`walk` is the official code's way, label by label, with an OrderedDict and a journal for the undo.
The pool is full and has been turned over before the clock starts. One thread.
"""

import argparse
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.heads.slots import Slots

Labels = np.ndarray


class Walk:
    """Least recently used identities make room; each insert can be taken back."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self.slot_of: OrderedDict[int, int] = OrderedDict()

    def insert(self, labels: list[int], journal: list[tuple[int, int, int]] | None) -> list[int]:
        """Slots of the labels; `journal` takes what undoing in reverse order needs."""
        slots = []
        for label in labels:
            slot = self.slot_of.get(label)
            if slot is not None:
                # An exact undo of a move would need a linked list; the walk is spared that.
                self.slot_of.move_to_end(label)
            else:
                evicted = -1
                if len(self.slot_of) == self.num_slots:
                    evicted, slot = self.slot_of.popitem(last=False)
                else:
                    slot = len(self.slot_of)
                self.slot_of[label] = slot
                if journal is not None:
                    journal.append((label, evicted, slot))
            slots.append(slot)
        return slots

    def undo(self, journal: list[tuple[int, int, int]]) -> None:
        """Bring the evicted back as the oldest, in reverse order."""
        for label, evicted, slot in reversed(journal):
            del self.slot_of[label]
            if evicted >= 0:
                self.slot_of[evicted] = slot
                self.slot_of.move_to_end(evicted, last=False)

    def find(self, labels: list[int]) -> list[int]:
        """Slots, -1 for those outside."""
        return [self.slot_of.get(label, -1) for label in labels]


def step_of_slots(slots: Slots, x: Labels, y: Labels) -> None:
    """Two passes with the roll-back between."""
    with slots.rolled_back():
        slots.insert(y)
        slots.find(x)
    slots.insert(x)
    slots.find(y)


def step_of_walk(walk: Walk, x: Labels, y: Labels) -> None:
    """The same, label by label."""
    first, second = x.tolist(), y.tolist()
    journal: list[tuple[int, int, int]] = []
    walk.insert(second, journal)
    walk.find(first)
    walk.undo(journal)
    walk.insert(first, None)
    walk.find(second)


def measure(step: Callable[[Labels, Labels], None], options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step."""
    generator = np.random.default_rng(0)
    draw = lambda: generator.integers(0, options.identities, options.labels)  # noqa: E731
    for _ in range(2 * options.slots // options.labels):
        step(draw(), draw())
    times = []
    for _ in range(options.steps):
        x, y = draw(), draw()
        start = time.perf_counter()
        step(x, y)
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "median_ms": statistics.median(times),
        "mean_ms": statistics.fmean(times),
        "max_ms": max(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slots", type=int, default=1_000_000)
    parser.add_argument("--identities", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, default=1536)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    figures = {}
    for rule in ("hits_first", "sequential"):
        slots = Slots(options.slots, num_identities=options.identities, rule=rule)
        figures[rule] = measure(lambda x, y, s=slots: step_of_slots(s, x, y), options)
        figures[rule]["index_bytes"] = slots.num_bytes
    walk = Walk(options.slots)
    figures["walk"] = measure(lambda x, y: step_of_walk(walk, x, y), options)
    ratios = {
        rule: {key: figures["walk"][key] / figures[rule][key] for key in ("median_ms", "mean_ms")}
        for rule in ("hits_first", "sequential")
    }
    result = {"shape": vars(options), "methods": figures, "ratio_of_walk": ratios}
    print(result)
    print(write_result("slots", result))


if __name__ == "__main__":
    main()

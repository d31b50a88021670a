"""A step of Partial FC on more and more ranks, with as many classes on each: what ranks cost.

    python benchmarks/head_ranks.py [--ranks 1 2 4 --classes 200000 --rate 0.1 --batch 128]

Every rank is a process of one thread with `--classes` class centers (bfloat16, d = 512, momentum),
and gives `--batch` images, so W ranks score W times the images against W times the classes. The
products of a rank then grow by W: the time to compare is that of one rank with the whole batch of W
ranks and its own classes, measured in the same run ("alone"). What is above it is the price of
talking, and of ranks that share cores and memory: of interest up to as many ranks as there are
cores. The seconds in collectives are measured by themselves.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from provenance import write_result
from torch import Tensor

from manyface.heads import PartialFC
from manyface.margins import CosFace
from manyface.parallel import ALONE, Pending, Ranks

DIM = 512


class Timed(Ranks):
    """Adds up the seconds in collectives."""

    seconds = 0.0

    def sum_(self, values: Tensor, name: str) -> Tensor:
        """As there."""
        started = time.perf_counter()
        found = super().sum_(values, name)
        Timed.seconds += time.perf_counter() - started
        return found

    def _gather_equal(self, values: Tensor, name: str) -> Pending:
        return _timed(super()._gather_equal(values, name))

    def scatter_sum(self, values: Tensor, counts: Any, name: str) -> Pending:
        """As there."""
        return _timed(super().scatter_sum(values, counts, name))


def _timed(pending: Pending) -> Pending:
    def finish() -> Tensor:
        started = time.perf_counter()
        found = pending.wait()
        Timed.seconds += time.perf_counter() - started
        return found

    return Pending(finish)


def main() -> None:
    """Measure, print and write the table."""
    options = _options().parse_args()
    rows = []
    for size in options.ranks:
        alone = _on_ranks(1, options, batch=options.batch * size)
        together = alone if size == 1 else _on_ranks(size, options, batch=options.batch)
        row = {
            "ranks": size,
            "classes": size * options.classes,
            "images": size * options.batch,
            "step_seconds": together["step"],
            "collective_seconds": together["collectives"],
            "alone_step_seconds": alone["step"],
            "ratio": together["step"] / alone["step"],
        }
        print(json.dumps(row))
        rows.append(row)
    write_result(
        "head_ranks",
        {
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "sample_rate": options.rate,
            "dim": DIM,
            "rows": rows,
        },
        options.json,
    )


def _on_ranks(size: int, options: argparse.Namespace, *, batch: int) -> dict[str, float]:
    """Medians of the slowest rank."""
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as folder:
        found = context.SimpleQueue()
        todo = (size, str(Path(folder) / "store"), vars(options), batch, found)
        ranks = [context.Process(target=_rank, args=(rank, *todo)) for rank in range(size)]
        for process in ranks:
            process.start()
        figures = [found.get() for _ in ranks]
        for process in ranks:
            process.join()
    return {name: max(each[name] for each in figures) for name in figures[0]}


def _rank(rank: int, size: int, store: str, options: dict[str, Any], batch: int, to: Any) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(store, size),  # type: ignore[attr-defined]
            rank=rank,
            world_size=size,
            timeout=timedelta(minutes=10),
        )
    head = PartialFC(
        num_classes=options["classes"] * size,
        dim=DIM,
        margin=CosFace(0.4),
        sample_rate=options["rate"],
        dtype=torch.bfloat16,
        ranks=Timed() if size > 1 else ALONE,
    )
    draw = torch.Generator().manual_seed(rank)
    seconds, talking = [], []
    for _ in range(2 + options["steps"]):
        embeddings = torch.randn(batch, DIM, generator=draw, requires_grad=True)
        labels = torch.randint(head.num_classes, (batch,), generator=draw)
        head.ranks.wait_for_all("start of a step")
        started, Timed.seconds = time.perf_counter(), 0.0
        head(embeddings, labels).backward()
        head.step(0.1)
        seconds.append(time.perf_counter() - started)
        talking.append(Timed.seconds)
    to.put({"step": statistics.median(seconds[2:]), "collectives": statistics.median(talking[2:])})
    if size > 1:
        dist.destroy_process_group()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--classes", type=int, default=200_000, help="on each rank")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=128, help="images of each rank")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", type=Path)
    return parser


if __name__ == "__main__":
    main()

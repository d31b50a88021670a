"""Checkpoints: how long a save stops training, save and load rates, what a part of a table reads.

    python benchmarks/checkpoint_speed.py [--gigabytes 2 --repeats 5 --folder /tmp]

State: class centers of 512 numbers and their momentum, float32. One process: the pause of a save in
the background, the time until it is committed, a save that training waits for; a load from a cold
page cache (the kernel is asked to drop the files), copied to where it belongs. Then a table that 4
ranks wrote, read by k: bytes that each reads to check it (counted by the kernel, rchar), bytes it
takes from the disk (read_bytes), its highest memory above its rows. Ranks are gloo processes here.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT / "tests" / "distributed"))

from processes import on_ranks

from manyface.checkpoint import AsyncSaver, RowShard, load, local_rows, newest, save
from manyface.observe import MemoryMeter
from manyface.parallel import Ranks, Shard

DIM, WRITERS, READERS = 512, 4, (1, 2, 3, 5, 8)
NAMES = ("centers.weight", "centers.velocity")
GB = 1e9


def shards(num_rows: int, *, filled: bool) -> dict[str, RowShard]:
    """This rank's rows of both tables."""
    ranks = Ranks()
    shard = Shard.of(num_rows, rank=ranks.rank, size=ranks.size)
    make = torch.rand if filled else torch.zeros
    return {name: RowShard(make(len(shard), DIM), shard) for name in NAMES}


def drop_from_page_cache(folder: Path) -> None:
    """Ask the kernel to forget files, so that they are read from the disk."""
    for path in folder.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def saving(folder: Path, num_rows: int, repeats: int) -> dict[str, Any]:
    """Pauses and times of saves by one process, in the background and not."""
    tensors = {"head": shards(num_rows, filled=True)}
    num_bytes = sum(each.values.nbytes for each in tensors["head"].values())
    saver = AsyncSaver(folder)
    started = time.perf_counter()
    saver.reserve(tensors)
    reserved = time.perf_counter() - started
    pauses, totals, waits = [], [], []
    for step in range(repeats):
        started = time.perf_counter()
        pause = saver.save(step=step, tensors=tensors, state={})
        if not pause.in_background:
            raise SystemExit("there is no memory for a copy: measure with fewer --gigabytes")
        saver.wait()
        totals.append(time.perf_counter() - started)
        pauses.append(pause.seconds)
        shutil.rmtree(newest(folder))
    for step in range(repeats):
        started = time.perf_counter()
        path = save(folder, step=step, tensors=tensors, state={})
        waits.append(time.perf_counter() - started)
        if step < repeats - 1:
            shutil.rmtree(path)
    return {
        "bytes": num_bytes,
        "reserve_seconds": round(reserved, 3),
        "pause_seconds": figures(pauses),
        "commit_seconds_in_background": figures(totals),
        "commit_seconds_while_training_waits": figures(waits),
        "save_gigabytes_per_second": round(num_bytes / statistics.median(waits) / GB, 2),
    }


def loading(folder: Path, num_rows: int, repeats: int) -> dict[str, Any]:
    """Times of loads by one process: files on the disk, files in the page cache."""
    found: dict[str, Any] = {}
    tensors = shards(num_rows, filled=False)
    for where in ("cold", "warm"):
        verified, placed = [], []
        for _ in range(repeats):
            if where == "cold":
                drop_from_page_cache(folder)
            started = time.perf_counter()
            group = load(newest(folder)).group("head")
            verified.append(time.perf_counter() - started)
            for name, like in tensors.items():
                like.values.copy_(local_rows(group[name], like))
            placed.append(time.perf_counter() - started)
            del group  # pages that are mapped stay
        num_bytes = sum(each.values.nbytes for each in tensors.values())
        found[where] = {
            "verify_seconds": figures(verified),
            "load_seconds": figures(placed),
            "load_gigabytes_per_second": round(num_bytes / statistics.median(placed) / GB, 2),
        }
    return found


def write_sharded(folder: Path, num_rows: int) -> None:
    """One checkpoint of this many ranks."""
    save(folder, step=1, tensors={"head": shards(num_rows, filled=True)}, state={})


def read_part(folder: Path, num_rows: int) -> dict[str, Any]:
    """What this rank reads to load its part."""
    ranks = Ranks()
    tensors = shards(num_rows, filled=False)
    for each in tensors.values():
        each.values.fill_(1)  # its pages are there
    ranks.wait_for_all("start")
    before, started = io_counters(), time.perf_counter()
    with MemoryMeter(interval_seconds=0.002) as meter:
        base = meter.peak_bytes
        group = load(newest(folder), ranks=ranks).group("head")
        for name, like in tensors.items():
            rows = local_rows(group[name], like)
            if rows is not like.values:
                like.values.copy_(rows)
        above = meter.peak_bytes - base
    seconds = time.perf_counter() - started
    after = io_counters()
    return {
        "checked_bytes": after["rchar"] - before["rchar"],
        "disk_bytes": after["read_bytes"] - before["read_bytes"],
        "memory_above_the_rows": above,
        "seconds": seconds,
    }


def io_counters() -> dict[str, int]:
    """The kernel's counters of this process."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def parts(folder: Path, num_rows: int) -> dict[str, Any]:
    """For each number of readers the most that one of them reads, as a share of the table."""
    on_ranks(write_sharded, WRITERS, folder, num_rows, seconds=300)
    whole = 2 * num_rows * DIM * 4
    found = {}
    for size in READERS:
        drop_from_page_cache(folder)
        each = on_ranks(read_part, size, folder, num_rows, seconds=300)
        most = {name: max(one[name] for one in each) for name in each[0]}
        found[f"{size} ranks"] = {
            "checked_share_times_k": round(most["checked_bytes"] * size / whole, 3),
            "disk_share_times_k": round(most["disk_bytes"] * size / whole, 3),
            "memory_above_the_rows_mib": round(most["memory_above_the_rows"] / 2**20, 1),
            "seconds": round(most["seconds"], 2),
        }
    return found


def figures(values: list[float]) -> dict[str, float]:
    """Median and largest."""
    return {"median": round(statistics.median(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """Measure, print, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    num_rows = int(options.gigabytes * GB / (2 * DIM * 4))
    result: dict[str, Any] = {"load_average_at_start": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        one, many = Path(folder) / "one", Path(folder) / "many"
        result["one_process_saves"] = saving(one, num_rows, options.repeats)
        result["one_process_loads"] = loading(one, num_rows, options.repeats)
        shutil.rmtree(one)
        result[f"written_by_{WRITERS}_ranks_read_by"] = parts(many, num_rows)
    result["load_average_at_end"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result, indent=2))
    write_result("checkpoint_speed", result, options.json)


if __name__ == "__main__":
    main()

"""A checkpoint of ten million class centers with momentum, on a machine that has no room for two.

    python benchmarks/checkpoint_large.py [--classes 10000000 --folder /tmp]

Partial FC at 0.1, d = 512, rows and momentum in bfloat16 (20.5 GB), one process. A copy does not
fit beside the table, so the saver writes at once and training waits: how long, how fast, and the
peak of anonymous + shared memory. Then the file is checked and read back into the living table, and
compared with what was saved by a checksum of its bits.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from provenance import write_result

from manyface.checkpoint import AsyncSaver, RowShard, load, local_rows, step_name
from manyface.heads import PartialFC
from manyface.margins import CosFace
from manyface.observe import MemoryMeter
from manyface.train.compare import checksum

DIM, BATCH = 512, 256


def main() -> None:
    """Train a step, save, load, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--classes", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, MemoryMeter() as meter:
        found = measure(options.classes, Path(folder), meter)
    found = {"classes": options.classes, "load_average_at_start": round(load_before, 1), **found}
    print(json.dumps(found, indent=2))
    write_result("checkpoint_large", found, options.json)


def measure(num_classes: int, folder: Path, meter: MemoryMeter) -> dict[str, Any]:
    """Figures of one save and one load."""
    head = PartialFC(
        num_classes=num_classes,
        dim=DIM,
        margin=CosFace(0.4),
        sample_rate=0.1,
        dtype=torch.bfloat16,
    )
    embeddings = torch.randn(BATCH, DIM, requires_grad=True)
    head(embeddings, torch.randint(num_classes, (BATCH,))).backward()
    head.step(0.1)
    shards = head.shards()
    tensors = {name: RowShard(head.state_dict()[name], shard) for name, shard in shards.items()}
    sums = {name: int(checksum(each.values)) for name, each in tensors.items()}
    num_bytes = sum(each.values.nbytes for each in tensors.values())
    before = meter.peak_bytes

    saver = AsyncSaver(folder)
    pause = saver.save(step=1, tensors={"head": tensors}, state={})
    saver.wait()
    saved = meter.peak_bytes

    for each in tensors.values():
        each.values.zero_()
    started = time.perf_counter()
    group = load(folder / step_name(1)).group("head")
    for name, each in tensors.items():
        rows = local_rows(group[name], each)
        if rows is not each.values:
            each.values.copy_(rows)
    seconds = time.perf_counter() - started
    if sums != {name: int(checksum(each.values)) for name, each in tensors.items()}:
        raise SystemExit("what was loaded is not what was saved")
    gib = 2**30
    return {
        "bytes": num_bytes,
        "in_background": pause.in_background,
        "pause_seconds": round(pause.seconds, 1),
        "save_gigabytes_per_second": round(num_bytes / pause.seconds / 1e9, 2),
        "check_and_load_seconds": round(seconds, 1),
        "peak_gib_of_training": round(before / gib, 2),
        "peak_gib_while_saving": round(saved / gib, 2),
        "peak_gib_while_loading": round(meter.peak_bytes / gib, 2),
    }


if __name__ == "__main__":
    main()

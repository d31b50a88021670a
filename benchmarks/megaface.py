"""MegaFace-like: rank-1 and TAR among a million distractors, how long and in how much memory.

    python benchmarks/megaface.py [--distractors 1000000 --people 1000 --images 5 --dim 512]

The answer is known. Images of a person have cosines of about 0.5. For the first image of each tenth
person there is a distractor that is nearer to it (0.7) and like nobody else; the others are random,
and none of them comes near. So of the ordered pairs of a person those fail at rank 1 whose probe is
such an image, and none at rank 10; at a FAR that allows more impostors than were planted TAR is 1.
Distractors lie in files of 100,000, float16 as `manyface embed --half` writes them, and are mapped.
Memory is the peak of anonymous and shared pages. Some probes are compared with brute force.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import write_result

from manyface.base.threads import usable_cores
from manyface.evaluate.blocks import unit_rows
from manyface.evaluate.identification import megaface_result
from manyface.evaluate.ranks import search
from manyface.observe.memory import MemoryMeter, give_back_freed

FARS = (1e-5, 1e-6)
IN_A_FILE, EACH, CHECKED = 100_000, 10, 50


def probes(people: int, images: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings [N, D], labels [N], and what is of each image alone [N, D]."""
    rng = np.random.default_rng(0)
    centers = unit(rng.standard_normal((people, dim), dtype=np.float32))
    labels = np.repeat(np.arange(people), images)
    own = unit(rng.standard_normal((people * images, dim), dtype=np.float32))
    return unit(centers[labels] + own), labels, own


def unit(rows: np.ndarray) -> np.ndarray:
    """Of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_distractors(folder: Path, count: int, planted: np.ndarray) -> list[np.ndarray]:
    """Mapped files of random embeddings, with `planted` [n, D] among the last ones."""
    rng = np.random.default_rng(1)
    files = []
    for start in range(0, count, IN_A_FILE):
        shape = (min(IN_A_FILE, count - start), planted.shape[1])
        rows = unit(rng.standard_normal(shape, dtype=np.float32))
        if start + len(rows) == count:
            rows[: len(planted)] = planted
        np.save(folder / f"{start}.npy", rows.astype(np.float16))
        files.append(np.load(folder / f"{start}.npy", mmap_mode="r"))
    return files


def agreement(rows: np.ndarray, labels: np.ndarray, files: list[np.ndarray]) -> dict[str, float]:
    """Of some probes the highest scores, against one product with each file."""
    chosen = np.random.default_rng(2).choice(len(rows), CHECKED, replace=False)
    found = search(rows[chosen], labels[chosen], [(file, None) for file in files], ranks=(10,))
    mine = unit_rows(rows[chosen], "probes")
    brute = [mine @ unit_rows(file, "distractors").T for file in files]
    highest = np.sort(np.concatenate([np.sort(each)[:, -10:] for each in brute], axis=1))[:, -10:]
    return {"largest_difference": float(np.abs(highest[:, ::-1] - found.others).max())}


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time, memory and answers."""
    rows, labels, own = probes(options.people, options.images, options.dim)
    planted = own[:: options.images * EACH]
    files = write_distractors(folder, options.distractors, planted)
    give_back_freed()
    with MemoryMeter() as meter:
        before, used = time.perf_counter(), time.process_time()
        result = megaface_result(
            rows, labels, files, name="megaface", fars=FARS, device=options.device
        )
        seconds, used = time.perf_counter() - before, time.process_time() - used
        peak = meter.peak_bytes
    expected = {"rank-1": 1 - len(planted) / len(rows), "rank-10": 1.0, "tar@far=1e-06": 1.0}
    for name, value in expected.items():
        if abs(result.value(name) - value) > 1e-12:
            raise SystemExit(f"{name} is {result.value(name)}, expected {value}")
    return {
        "probes": len(rows),
        "distractors": options.distractors,
        "dim": options.dim,
        "trials": len(rows) * options.distractors,
        "seconds": seconds,
        "cpu_seconds": used,  # of all threads: what it takes of a machine that others use too
        "trials_per_second": len(rows) * options.distractors / seconds,
        "peak_bytes": peak,
        "expected": expected,
        "scores": {each.name: [each.value, each.low, each.high] for each in result.scores},
        "agreement": agreement(rows, labels, files),
    }


def main() -> None:
    """Measure and write results/megaface.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distractors", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    for key, value in figures.items():
        print(key, value)
    write_result("megaface" + ("_gpu" if options.device != "cpu" else ""), figures)


if __name__ == "__main__":
    main()

"""Full permutation against block shuffle: what a cold disk reads, what batches hold, what it costs.

    python benchmarks/shuffle.py [--gigabytes 1.2 --folder /tmp --seeds 3 --epochs 6]

1. *Reading*: a tar of JPEGs of about 4 KB, on the disk of `--folder`, out of the page cache before
   each measurement. Encoded records are read in the order of the sampler, a batch at a time, with
   what it asks for ahead; nothing is decoded. Bytes that came from the disk are the kernel's figure
   for the process, `jumps` are requests that do not go on where the last one ended.
2. *What a batch holds*, by the samplers alone, where records lie person by person, the worst case:
   share of images with another one of the same person in the batch, people in a batch, and how far
   apart batch-mates lie (of the whole set; 1/3 for chance).
3. *Verification accuracy* of synthetic faces, stored person by person, some seeds of each order.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from provenance import ROOT, write_result
from studies import summary, train

sys.path.insert(0, str(ROOT / "src"))

from manyface.data import BlockSampler, EpochSampler, open_records
from manyface.data.records import Records
from manyface.data.records.readahead import merged
from manyface.data.samplers import Sampler
from manyface.data.synthetic import SyntheticFaces

BATCH, PER_PERSON = 128, 40
READ_ORDERS = {"full": None, "1024 x 64": (1024, 64), "256 x 64": (256, 64), "64 x 64": (64, 64)}
HELD_ORDERS = {"full": None, "1024 x 64": (1024, 64), "1024 x 8": (1024, 8), "1024 x 1": (1024, 1),
               "64 x 64": (64, 64)}  # fmt: skip
RECIPE = """
[data]
image_size = 32
[data.synthetic]
num_identities = 500
[backbone]
name = "tiny"
embedding_size = 64
[head]
scale = 32
[train]
batch_size = 64
log_every = 200
[evaluation]
num_pairs = 4000
[optimizer]
learning_rate = 0.1
"""
TRAINED_ORDERS = {"full": None, "64 x 16 (1024 images)": (64, 16), "64 x 1 (64 images)": (64, 1)}


def sampler_of(length: int, order: tuple[int, int] | None, records: Records | None) -> Sampler:
    if order is None:
        return EpochSampler(length, seed=1)
    from_storage = None if records is None else records.from_storage
    return BlockSampler(
        length, seed=1, block_size=order[0], window=order[1], from_storage=from_storage
    )


def write_tar(path: Path, num_bytes: int) -> None:
    """Copies of a few hundred faces, person by person, until it is as large."""
    faces = SyntheticFaces(num_identities=300, images_per_identity=1, image_size=112)
    pixels = faces.load(np.arange(300)).numpy()
    encoded = [simplejpeg.encode_jpeg(each, 88, "RGB", "420") for each in pixels]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        number = 0
        while tar.offset < num_bytes:
            person, image = divmod(number, PER_PERSON)
            info = tarfile.TarInfo(f"{person:06d}/{image:04d}.jpg")
            data = encoded[number % len(encoded)]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            number += 1


def forget(path: Path) -> None:
    """Write out and out of the page cache."""
    with path.open("rb+") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_from_disk() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


class Watched:
    """Counts what is asked of the disk for."""

    def __init__(self, records: Any) -> None:
        self.records, self.jumps, self.end = records, 0, -1
        self.asked = np.zeros(len(records), bool)

    def ahead(self, indices: np.ndarray) -> None:
        if indices.size:
            self.records.will_read(indices)
            self.asked[indices] = True
            for start, stop in merged(self.records._offsets[indices], self.records._sizes[indices]):
                self._request(start, stop)

    def read(self, index: int) -> int:
        if not self.asked[index]:
            start = int(self.records._offsets[index])
            self._request(start, start + int(self.records._sizes[index]))
        return len(self.records.read(index))

    def _request(self, start: int, stop: int) -> None:
        self.jumps += not 0 <= start - self.end <= 4096
        self.end = stop


def reading(path: Path, records: Records, order: tuple[int, int] | None, images: int) -> Any:
    """Of the first `images` after window 0 (whose blocks a start waits for): rate, bytes, jumps."""
    forget(path)
    sampler, watched = sampler_of(len(records), order, records), Watched(records)
    begun, before, useful = time.perf_counter(), bytes_from_disk(), 0
    waits = []
    for first in range(0, images, BATCH):
        at = time.perf_counter()
        watched.ahead(sampler.ahead(first, BATCH, begins=first == 0))
        for index in sampler.indices(np.arange(first, first + BATCH)).tolist():
            useful += watched.read(index)
        waits.append(time.perf_counter() - at)
    seconds = time.perf_counter() - begun
    return {
        "images_per_second": round(images / seconds),
        "first_batch_seconds": round(waits[0], 3),
        "slowest_later_batch_ms": round(1000 * max(waits[1:]), 1),
        "bytes_from_disk_per_useful_byte": round((bytes_from_disk() - before) / useful, 2),
        "jumps_per_thousand_images": round(1000 * watched.jumps / images, 1),
    }


def held(length: int, order: tuple[int, int] | None, per_person: int = 10) -> dict[str, float]:
    """What batches of one epoch hold, of 50 that are spread over it."""
    sampler = sampler_of(length, order, None)
    repeated, people, distance = [], [], []
    for first in np.linspace(0, length - BATCH, 50).astype(int):
        records = sampler.indices(np.arange(first, first + BATCH))
        _, counts = np.unique(records // per_person, return_counts=True)
        repeated.append(counts[counts > 1].sum() / BATCH)
        people.append(len(counts))
        distance.append(np.abs(records[:, None] - records).sum() / (BATCH * (BATCH - 1)) / length)
    return {
        "share_with_a_mate_of_the_same_person": round(float(np.mean(repeated)), 4),
        "people_in_a_batch": round(float(np.mean(people)), 1),
        "mean_distance_of_mates": round(float(np.mean(distance)), 3),
    }


def accuracies(seeds: int, epochs: int, runs: Path) -> dict[str, Any]:
    """Verification accuracy of each order and seed."""
    recipe = runs / "recipe.toml"
    recipe.write_text(RECIPE)
    found: dict[str, list[Any]] = {name: [] for name in TRAINED_ORDERS}
    for seed in range(seeds):
        for name, order in TRAINED_ORDERS.items():
            options = [f"schedule.epochs={epochs}", f"run.seed={seed}", "evaluation.every_steps=0"]
            if order is not None:
                options += ["data.shuffle=block", f"data.block_size={order[0]}"]
                options += [f"data.shuffle_window={order[1]}"]
            run = train(
                recipe, f"{name.split(' (')[0].replace(' ', '')}-{seed}", options, runs=runs
            )
            found[name].append(json.loads((run / "result.json").read_text()))
    kept = ("accuracy", "mean_accuracy", "std_over_seeds")
    return {name: {k: summary(rows)[k] for k in kept} for name, rows in found.items()}


@contextmanager
def large_tar(folder: Path | None, gigabytes: float) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        path = Path(inside) / "faces.tar"
        write_tar(path, int(gigabytes * 1e9))
        yield path


def read_all(options: argparse.Namespace) -> dict[str, Any]:
    with large_tar(options.folder, options.gigabytes) as path:
        records = open_records(path)
        found: dict[str, Any] = {name: [] for name in READ_ORDERS}
        for _ in range(options.repeats):
            for name, order in READ_ORDERS.items():
                found[name].append(reading(path, records, order, options.images))
        disk = subprocess.run(
            ["df", "--output=source,fstype", path], capture_output=True, text=True, check=True
        )
        return {
            "images": len(records),
            "bytes": path.stat().st_size,
            "read": options.images,
            "disk": disk.stdout.splitlines()[-1].split(),
            **{
                name: {key: float(np.median([each[key] for each in rows])) for key in rows[0]}
                for name, rows in found.items()
            },
        }


def main() -> None:
    """Measure, print, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, default=131_072)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"load_average_at_start": round(os.getloadavg()[0], 1)}
    result["cold_reading"] = read_all(options)
    result["batches_of_128_of_ten_million_images"] = {
        name: held(10**7, order) for name, order in HELD_ORDERS.items()
    }
    if options.seeds:
        with tempfile.TemporaryDirectory() as runs:
            result["verification"] = {
                "set": f"500 people of 10, stored person by person, {options.epochs} epochs, "
                "batches of 64",
                **accuracies(options.seeds, options.epochs, Path(runs)),
            }
    print(json.dumps(result, indent=2))
    write_result("shuffle", result, options.json)


if __name__ == "__main__":
    main()

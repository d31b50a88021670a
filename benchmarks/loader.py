"""Decoding and batching of 112 x 112 JPEGs: the bare decoder, our loader, torch's with Pillow.

    python benchmarks/loader.py [--lfw lfw-112.tar --images 6000 --rounds 7]

Files are in the page cache. In each round, one after the other: the bare decoder (simplejpeg in a
plain loop, encoded images in memory, into one buffer) on one thread, whose rate times 2 is what
two free cores can do at most, and on two at once, which is what they do beside whatever else runs
on the machine; our Loader on 2 threads; and a transcription of what most people train with: a
torch DataLoader with 2 workers over a dataset like torchvision's ImageFolder, whose images are
opened by Pillow, mirrored by chance, turned into tensors and normalised (as torchvision 0.24 does
it, which is not installed here). Its prefetch_factor is the best of a few. Ratios are of one round,
and the median is given. `of_processor_time` compares the processor time of an image: the share of
the bare rate where every thread has a core, which does not hang on how busy the machine is. Ours
are uint8 as for a GPU, and float32 with the mirror, as the DataLoader's. Besides: how long a new
process takes to its first batch of a tar that is not in the page cache.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from provenance import ROOT, write_result
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(ROOT / "src"))

from manyface.data import Augmentation, DecodedImages, Loader, open_records
from manyface.data.synthetic import SyntheticFaces

BARE, BOTH = "bare decoder, 1 thread", "bare decoder, 2 threads at once"
RIVAL = "torch DataLoader + Pillow, 2 workers"
SIZE, BATCH, PER_PERSON = 112, 128, 10
FIRST_BATCH = """
import json, time
begun = time.perf_counter()
from manyface.data import Augmentation, DecodedImages, Loader, open_records
imported = time.perf_counter()
records = open_records({path!r})
opened = time.perf_counter()
source = DecodedImages(records, image_size=112, threads=2)
loader = Loader(source, batch_size=128, seed=0, augmentation=Augmentation())
batch = next(loader.batches(0, 1))
done = time.perf_counter()
print(json.dumps([imported - begun, opened - imported, done - opened]))
"""


class Folder(Dataset[tuple[torch.Tensor, int]]):
    """torchvision's ImageFolder with RandomHorizontalFlip, ToTensor, Normalize(0.5, 0.5)."""

    def __init__(self, root: Path) -> None:
        people = sorted(path for path in root.iterdir() if path.is_dir())
        self.samples = [
            (str(path), label) for label, person in enumerate(people)
            for path in sorted(person.iterdir())
        ]  # fmt: skip

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        with open(path, "rb") as file:  # noqa: PTH123  (as torchvision's pil_loader)
            image = Image.open(file).convert("RGB")
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True)).permute(2, 0, 1)
        tensor = pixels.contiguous().to(torch.float32).div(255).clone()
        mean = torch.as_tensor([0.5] * 3)[:, None, None]
        std = torch.as_tensor([0.5] * 3)[:, None, None]
        return tensor.sub_(mean).div_(std), label


def write_synthetic(root: Path, count: int) -> None:
    """Synthetic faces, a folder for every ten, JPEG as LFW's files are."""
    faces = SyntheticFaces(
        num_identities=count // PER_PERSON, images_per_identity=PER_PERSON, image_size=SIZE
    )
    for first in range(0, len(faces), 500):
        indices = np.arange(first, min(first + 500, len(faces)))
        for index, pixels in zip(indices.tolist(), faces.load(indices).numpy(), strict=True):
            person = root / f"{index // PER_PERSON:06d}"
            person.mkdir(exist_ok=True)
            data = simplejpeg.encode_jpeg(pixels, 95, "RGB", "420")
            (person / f"{index % PER_PERSON:04d}.jpg").write_bytes(data)


def unpack(path: Path, root: Path, count: int) -> None:
    """The first images of a tar as a folder of persons."""
    records = open_records(path)
    for index in range(min(count, len(records))):
        person = root / Path(records.describe(index).split(":")[-1]).parent.name
        person.mkdir(exist_ok=True)
        (person / records.file_name(index)).write_bytes(records.read(index))


def pack(root: Path, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for file in sorted(root.rglob("*.jpg")):
            tar.add(file, arcname=str(file.relative_to(root)))


def bare(encoded: list[bytes], *, threads: int = 1) -> Callable[[], float]:
    """Images per second of the decoder alone."""

    def decode(_: int) -> None:
        buffer = np.empty((SIZE, SIZE, 3), np.uint8)
        for data in encoded:
            simplejpeg.decode_jpeg(data, buffer=buffer)

    def run() -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, range(threads)))
        return threads * len(encoded) / (time.perf_counter() - begun)

    return run


def ours(path: Path, *, decoders: int, workers: int, on_device: bool) -> Callable[[], float]:
    """Images per second of our loader; float32 with the mirror, or uint8 as for a GPU."""
    source = DecodedImages(open_records(path), image_size=SIZE, threads=decoders, cache=0)
    loader = Loader(
        source,
        batch_size=BATCH,
        seed=0,
        augmentation=Augmentation(),
        prefetch=workers + 1,
        workers=workers,
        on_device=on_device,
    )

    def run() -> float:
        return rate(loader.batches(), count=len(source) // BATCH)

    return run


def theirs(root: Path, *, prefetch_factor: int) -> Callable[[], float]:
    """Images per second of torch's DataLoader with 2 workers."""
    loader = DataLoader(
        Folder(root),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
        prefetch_factor=prefetch_factor,
    )
    list(loader)  # its processes are there

    def run() -> float:
        return rate(iter(loader), count=len(loader))

    return run


def rate(batches: Iterator[Any], *, count: int) -> float:
    """Images per second of `count` batches; the first few are made before."""
    count -= 4
    list(islice(batches, 4))
    begun = time.perf_counter()
    done = sum(1 for _ in islice(batches, count))
    seconds = time.perf_counter() - begun
    if hasattr(batches, "close"):
        batches.close()
    return done * BATCH / seconds


def best_prefetch_factor(root: Path) -> int:
    found = {factor: theirs(root, prefetch_factor=factor)() for factor in (2, 4, 8)}
    return max(found, key=lambda factor: found[factor])


def first_batch(path: Path, rounds: int) -> dict[str, float]:
    """Seconds of a new process, the tar out of the page cache as far as the system lets it go."""
    found = []
    for _ in range(rounds):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        code = FIRST_BATCH.format(path=str(path))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True
        )
        found.append(json.loads(done.stdout))
    names = ("import", "open", "first_batch")
    medians = {
        name: round(median(each), 3)
        for name, each in zip(names, zip(*found, strict=True), strict=True)
    }
    return {**medians, "open_and_first_batch": round(median(a + b for _, a, b in found), 3)}


def compare(root: Path, tar: Path, rounds: int) -> dict[str, Any]:
    """Everything once a round, in an order that changes."""
    records = open_records(tar)
    encoded = [records.read(index) for index in range(len(records))]
    factor = best_prefetch_factor(root)
    runs = {
        BARE: bare(encoded[:2000]),
        BOTH: bare(encoded[:2000], threads=2),
        "ours uint8, tar, 2 workers": ours(tar, decoders=1, workers=2, on_device=True),
        "ours uint8, tar, 1 worker of 2 decoders": ours(tar, decoders=2, workers=1, on_device=True),
        "ours uint8, folder, 2 workers": ours(root, decoders=1, workers=2, on_device=True),
        "ours float32, tar, 2 workers": ours(tar, decoders=1, workers=2, on_device=False),
        "ours float32, folder, 2 workers": ours(root, decoders=1, workers=2, on_device=False),
        RIVAL: theirs(root, prefetch_factor=factor),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}  # images per second of it
    for number in range(rounds):
        names = list(runs)
        random.Random(number).shuffle(names)  # noqa: S311
        for name in names:
            begun = time.process_time(), time.perf_counter()
            found[name].append(runs[name]())
            busy = time.process_time() - begun[0], time.perf_counter() - begun[1]
            processor[name].append(found[name][-1] * busy[1] / busy[0])
    most = [2 * each for each in found[BARE]]
    kinds = [name for name in runs if name.startswith("ours")]
    return {
        "kilobytes_per_image": round(sum(map(len, encoded)) / len(encoded) / 1000, 1),
        "images": len(encoded),
        "prefetch_factor": factor,
        "images_per_second": {name: round(median(each)) for name, each in found.items()},
        "share_of_the_decoder_times_2": {name: _ratio(found[name], most) for name in kinds},
        "share_of_two_decoders_at_once": {name: _ratio(found[name], found[BOTH]) for name in kinds},
        "of_processor_time": {name: _ratio(processor[name], processor[BARE]) for name in kinds},
        "times_the_dataloader": {name: _ratio(found[name], found[RIVAL]) for name in kinds},
    }


def _ratio(one: list[float], other: list[float]) -> float:
    return round(median(a / b for a, b in zip(one, other, strict=True)), 3)


def main() -> None:
    """Measure, print, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lfw", type=Path, default=Path("lfw-112.tar"))
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"load_average_at_start": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        sets = {"synthetic": lambda root: write_synthetic(root, options.images)}
        if options.lfw.is_file():
            sets["LFW"] = lambda root: unpack(options.lfw, root, options.images)
        for name, write in sets.items():
            root, tar = Path(folder) / name, Path(folder) / f"{name}.tar"
            root.mkdir()
            write(root)
            pack(root, tar)
            result[name] = compare(root, tar, options.rounds)
    if options.lfw.is_file():
        result["seconds_to_the_first_batch_of_lfw"] = first_batch(options.lfw, options.rounds)
    print(json.dumps(result, indent=2))
    write_result("loader", result, options.json)


if __name__ == "__main__":
    main()

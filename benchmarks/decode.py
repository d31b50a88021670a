"""JPEG decoders for face crops: simplejpeg against Pillow and, where it is installed, OpenCV.

    python benchmarks/decode.py [--lfw lfw-112.tar --images 1500 --repeats 7]

Encoded images are in memory. One thread, images per second of its processor time: what decoding
takes from training, whatever else the machine is doing. Then whole batches through DecodedImages on
1 thread, again in processor time, and on 1 and 2 threads in wall time, which means something on an
idle machine only. Images: LFW at 112x112 as they are (4:2:0, about 4 KB), if present, and generated
ones at 112x112 (4:4:4 at quality 95, 4:2:0 at 95 and at 90).
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.data import DecodedImages, open_records

SIZE = 112
Decoder = Callable[[bytes], object]


def decoders() -> dict[str, Decoder]:
    """name -> function from bytes to uint8 [112, 112, 3], RGB."""
    buffer = np.empty((SIZE, SIZE, 3), np.uint8)
    found: dict[str, Decoder] = {
        "simplejpeg": lambda data: simplejpeg.decode_jpeg(data, buffer=buffer),
        "simplejpeg, fast DCT and upsampling": lambda data: simplejpeg.decode_jpeg(
            data, buffer=buffer, fastdct=True, fastupsample=True
        ),
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    }
    try:
        import cv2
    except ImportError:
        return found
    cv2.setNumThreads(1)
    found["OpenCV"] = lambda data: cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    return found


def generated_jpegs(count: int, **options: object) -> list[bytes]:
    """Random pictures with a face crop's mixture of smooth areas and fine grain."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        coarse = random.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        grain = random.normal(0, 4, (SIZE, SIZE, 1))
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", **options)
        images.append(buffer.getvalue())
    return images


def lfw_jpegs(path: Path, count: int) -> list[bytes]:
    """The first images of LFW."""
    records = open_records(path)
    return [records.read(index) for index in range(min(count, len(records)))]


def rates(images: list[bytes], repeats: int) -> dict[str, Any]:
    """Images per second of thread time, best of `repeats` interleaved rounds."""
    found = decoders()
    best = dict.fromkeys(found, float("inf"))
    for _ in range(repeats):
        for name, decode in found.items():
            start = time.thread_time()
            for data in images:
                decode(data)
            best[name] = min(best[name], time.thread_time() - start)
    per_second = {name: round(len(images) / seconds) for name, seconds in best.items()}
    ours = per_second["simplejpeg"]
    return {
        "kilobytes_per_image": round(sum(map(len, images)) / len(images) / 1000, 1),
        "images_per_second_and_core": per_second,
        "ratio_of_simplejpeg_to": {
            name: round(ours / rate, 2) for name, rate in per_second.items() if name != "simplejpeg"
        },
    }


def batch_rates(path: Path, repeats: int) -> dict[str, dict[str, int]]:
    """Images per second through DecodedImages, best batch of 512: processor time, wall time."""
    records = open_records(path)
    result: dict[str, dict[str, int]] = {"processor": {}, "wall": {}}
    for size in (112, 64):
        for threads in (1, 2):
            source = DecodedImages(records, image_size=size, threads=threads, cache=0)
            best = {"processor": float("inf"), "wall": float("inf")}
            for repeat in range(repeats):
                indices = np.random.default_rng(repeat).integers(0, len(records), 512)
                starts = {"processor": time.process_time(), "wall": time.perf_counter()}
                source.load(indices)
                ends = {"processor": time.process_time(), "wall": time.perf_counter()}
                best = {clock: min(best[clock], ends[clock] - starts[clock]) for clock in best}
            for clock, seconds in best.items():
                result[clock][f"{size}x{size}, {threads} threads"] = round(512 / seconds)
    return result


def installed(package: str) -> str | None:
    """Version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure, print, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lfw", type=Path, default=Path("lfw-112.tar"))
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    packages = ("simplejpeg", "pillow", "opencv-python-headless")
    sets = {
        "generated, 4:4:4, quality 95": {"quality": 95, "subsampling": 0},
        "generated, 4:2:0, quality 95": {"quality": 95, "subsampling": 2},
        "generated, 4:2:0, quality 90": {"quality": 90, "subsampling": 2},
    }
    result: dict[str, Any] = {
        "versions": {package: installed(package) for package in packages},
        "load_average_at_start": round(os.getloadavg()[0], 1),
        "images": options.images,
        "single_thread": {
            name: rates(generated_jpegs(options.images, **how), options.repeats)
            for name, how in sets.items()
        },
    }
    if options.lfw.is_file():
        lfw = lfw_jpegs(options.lfw, options.images)
        result["single_thread"]["LFW, 4:2:0"] = rates(lfw, options.repeats)
        result["whole_batches_of_lfw"] = batch_rates(options.lfw, options.repeats)
    print(json.dumps(result, indent=2))
    write_result("decode", result, options.json)


if __name__ == "__main__":
    main()

"""Images per second and core that the batch augmentation makes ready, option by option.

    python benchmarks/augment.py [--batch 128 --repeats 15]

uint8 [B, S, S, 3] to float32 [B, 3, S, S] on one thread, in processor time, best of the repeats.
`normalise` alone is the floor.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.data import Augmentation, augment, normalise

COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}
WARP = {"rotate_degrees": 10.0, "scale": 0.1}
DEGRADE = {"grey": 0.1, "low_resolution": 0.2, "blur": 0.2, "erase": 0.2}
CASES: dict[str, dict[str, float]] = {
    "flip": {},
    "flip, shift": {"shift": 4},
    "flip, shift, brightness": {"shift": 4, "brightness": 0.2},
    "flip, shift, brightness, contrast, saturation": {"shift": 4, **COLOUR},
    "flip, shift, rotation, scale": {"shift": 4, **WARP},
    "flip, low resolution 0.2": {"low_resolution": 0.2},
    "flip, blur 0.2": {"blur": 0.2},
    "flip, erase 0.2": {"erase": 0.2},
    "everything": {"shift": 4, **COLOUR, **WARP, **DEGRADE},
}


def seconds_per_batch(images: torch.Tensor, options: Augmentation | None, repeats: int) -> float:
    """Best processor time; no options: normalise."""
    positions = np.arange(len(images))
    best = float("inf")
    for _ in range(repeats):
        start = time.thread_time()
        if options is None:
            normalise(images)
        else:
            augment(images, positions=positions, seed=1, options=options)
        best = min(best, time.thread_time() - start)
    return best


def main() -> None:
    """Measure, print, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates: dict[str, dict[str, int]] = {}
    for size in (64, 112):
        images = torch.randint(0, 256, (arguments.batch, size, size, 3), dtype=torch.uint8)
        cases = {"normalise": None} | {name: Augmentation(**case) for name, case in CASES.items()}
        rates[f"{size}x{size}"] = {
            name: round(arguments.batch / seconds_per_batch(images, case, arguments.repeats))
            for name, case in cases.items()
        }
    result = {
        "batch": arguments.batch,
        "load_average_at_end": round(os.getloadavg()[0], 1),
        "images_per_second_and_core": rates,
    }
    print(json.dumps(result, indent=2))
    write_result("augment", result, arguments.json)


if __name__ == "__main__":
    main()

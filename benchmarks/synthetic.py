"""Images per second of the synthetic face renderer on one core.

    python benchmarks/synthetic.py [--images 1024 --repeats 9]

One thread, images per second of its processor time, best of the repeats: what rendering takes from
training, whatever else the machine is doing. Batches of 128, as a loader asks for them.
"""

import argparse
import sys
import time

import numpy as np
import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.data.synthetic import SyntheticFaces

SIZES = (48, 64, 112)
BATCH = 128


def seconds_per_batch(source: SyntheticFaces, images: int, repeats: int) -> list[float]:
    """Best processor time of each batch over the repeats; batches show different people."""
    starts = range(0, images, BATCH)
    best = [float("inf")] * len(starts)
    for _ in range(repeats):
        for place, first in enumerate(starts):
            indices = (np.arange(first, first + BATCH) * 7919) % len(source)
            start = time.thread_time()
            source.load(indices)
            best[place] = min(best[place], time.thread_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024, help="a multiple of 128")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in SIZES:
        source = SyntheticFaces(num_identities=10**6, images_per_identity=10, image_size=size)
        best = seconds_per_batch(source, options.images, options.repeats)
        rate = round(BATCH * len(best) / sum(best))
        rows.append({"image_size": size, "images_per_second_and_core": rate})
        print(f"{size} x {size}: {rate} images per second")
    result = {"difficulty": "faces-1", "batch": BATCH, "images": options.images, "rows": rows}
    print(f"wrote {write_result('synthetic', result)}")


if __name__ == "__main__":
    main()

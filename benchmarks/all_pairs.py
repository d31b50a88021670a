"""All against all: exact TAR at FAR 1e-6 of 2e10 pairs, at what share of the machine's matrix rate.

    python benchmarks/all_pairs.py [--images 200000 --people 20000 --dim 512 --device cpu]

Embeddings are random people with random images of theirs, so that genuine scores are like those of
a good net. The matrix rate is that of a large square product in float32. One is made after each
25th of the scan, between two blocks, so that both see the same machine, whatever else runs on it;
its time is not the scan's. The rate of the scan counts N (N - 1) / 2 pairs of D multiply-adds, so
what is computed twice (blocks on the diagonal) counts against it. Memory is the peak of anonymous
and shared pages of the process, the embeddings given included. The same code is then compared with
brute force over every pair of 5,000 images.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from provenance import write_result

from manyface.base.threads import usable_cores
from manyface.evaluate.all_pairs import scan_all_pairs
from manyface.evaluate.blocks import unit_rows
from manyface.evaluate.metrics import allowed_impostors
from manyface.evaluate.tails import Tail, tail_intervals, tail_tar, tail_threshold
from manyface.observe.memory import MemoryMeter, give_back_freed

FARS = (1e-4, 1e-5, 1e-6, 1e-7)
PRODUCTS = 25


def faces(images: int, people: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [N, D] and labels [N]; images of some people lie farther from each other:
    their cosines are about 0.5 to 0.15."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, people, images)
    spread = rng.uniform(1.0, 2.4, people).astype(np.float32)
    centers = rng.standard_normal((people, dim), dtype=np.float32)
    found = np.empty((images, dim), np.float32)
    for start in range(0, images, 4096):
        part = labels[start : start + 4096]
        noise = rng.standard_normal((len(part), dim), dtype=np.float32)
        found[start : start + 4096] = centers[part] + spread[part, None] * noise
    return found, labels


class Reference:
    """A square product now and then: `seconds` of all, `rate` in operations a second."""

    def __init__(self, device: torch.device, side: int = 3072) -> None:
        self.left, self.right = torch.randn(2, side, side, device=device)
        self.seconds, self.count, self._told = 0.0, 0, 0.0
        self.run()
        self.seconds, self.count = 0.0, 0  # the first one warms up

    def run(self) -> None:
        """One product, waited for."""
        before = time.perf_counter()
        (self.left @ self.right)[0, 0].item()
        self.seconds += time.perf_counter() - before
        self.count += 1

    def now_and_then(self, done: int, total: int) -> None:
        """For the scan's progress."""
        if done / total >= self._told + 1 / PRODUCTS:
            self._told = done / total
            self.run()

    @property
    def rate(self) -> float:
        """Each multiply-add counted as two operations."""
        return float(2 * len(self.left) ** 3 * self.count / self.seconds)


def scan(options: argparse.Namespace, device: torch.device) -> tuple[dict[str, Any], Tail]:
    """Time and memory of the scan, and what it found."""
    embeddings, labels = faces(options.images, options.people, options.dim)
    reference = Reference(device)
    give_back_freed()
    with MemoryMeter() as meter:
        before = time.perf_counter()
        tail = scan_all_pairs(
            embeddings, labels, fars=FARS, device=device, progress=reference.now_and_then
        ).tail
        seconds = time.perf_counter() - before - reference.seconds
        peak = meter.peak_bytes
    pairs = options.images * (options.images - 1) // 2
    rate = 2 * pairs * options.dim / seconds
    return {
        "images": options.images,
        "people": options.people,
        "dim": options.dim,
        "pairs": pairs,
        "genuine": len(tail.genuine),
        "impostors_kept": len(tail.impostors),
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "operations_per_second": rate,
        "matrix_rate": reference.rate,
        "share_of_matrix_rate": rate / reference.rate,
        "peak_bytes": peak,
        "embeddings_bytes": embeddings.nbytes,
    }, tail


def agreement(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """5,000 images against brute force: one product of all, sorted."""
    embeddings, labels = faces(5000, 500, options.dim)
    unit = unit_rows(embeddings, "5,000 images")
    row, column = np.triu_indices(5000, 1)
    similarity, same = (unit @ unit.T)[row, column], labels[row] == labels[column]
    impostors = np.sort(similarity[~same])[::-1]
    tail = scan_all_pairs(embeddings, labels, fars=FARS, device=device).tail
    found = {}
    for far in FARS[:3]:
        limit = impostors[allowed_impostors(far, len(impostors))]
        found[f"{far:g}"] = {
            "tar": tail_tar(tail, far),
            "brute_force": float((similarity[same] > limit).mean()),
            "threshold_difference": abs(tail_threshold(tail, far) - float(limit)),
        }
    return found


def main() -> None:
    """Measure and write results/all_pairs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    device = torch.device(options.device)
    figures, tail = scan(options, device)
    before = time.perf_counter()
    limits, _ = tail_intervals(tail, FARS, resamples=200)
    figures["interval_seconds"] = time.perf_counter() - before
    figures["tar_at_far"] = {
        f"{far:g}": {"tar": tail_tar(tail, far), "low": low, "high": high}
        for far, (low, high) in zip(FARS, limits, strict=True)
    }
    result = {"scan": figures, "agreement_on_5000": agreement(options, device)}
    for key, value in figures.items():
        print(key, value)
    print(result["agreement_on_5000"])
    write_result("all_pairs" + ("_gpu" if device.type == "cuda" else ""), result)


if __name__ == "__main__":
    main()

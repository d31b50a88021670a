"""Drawing the classes of a Partial FC step: ours against a random number per class and top-k.

    python benchmarks/head_sampling.py [--classes 10000000 --sample-rate 0.1 --batch 1024]

Ours is drawn in blocks of neighbouring rows, as a head does by default, and row by row. The rival
is what insightface's PartialFC_V2 does: torch.rand over all classes, positives set to 2, topk,
sort. All give distinct class ids with every positive among them, and the places of the labels.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "src"))

from manyface.heads.row_order import RowOrder
from manyface.heads.sampling import SampleSpec, Uniform, sample_size


def top_k_of_random(labels: torch.Tensor, *, num_classes: int, size: int) -> torch.Tensor:
    """The rival: O(classes) random numbers, top-k, sort, labels searched."""
    scores = torch.rand(num_classes)
    scores[labels.unique()] = 2.0
    ids = scores.topk(size).indices.sort().values
    return torch.searchsorted(ids, labels)


def seconds_of(draw: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median, min and max of `repeats` calls after one warm-up."""
    draw()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        draw()
        seconds.append(time.perf_counter() - start)
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def main() -> None:
    """Time both and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=10_000_000)
    parser.add_argument("--sample-rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = sample_size(options.classes, options.sample_rate)
    labels = torch.randint(options.classes, (options.batch,))
    spec = SampleSpec(
        options.classes, size, seed=0, step=0, order=RowOrder(options.classes, seed=0)
    )
    blocks = seconds_of(lambda: Uniform().draw(labels, spec), options.repeats)
    rows = seconds_of(lambda: Uniform(1).draw(labels, spec), options.repeats)
    rival = seconds_of(
        lambda: top_k_of_random(labels, num_classes=options.classes, size=size), options.repeats
    )
    result = {
        "shape": {"classes": options.classes, "sample": size, "batch": options.batch},
        "seconds": {"in_blocks": blocks, "row_by_row": rows, "top_k_of_random": rival},
        "top_k_over_ours": {
            "in_blocks": rival["median"] / blocks["median"],
            "row_by_row": rival["median"] / rows["median"],
        },
    }
    print(json.dumps(result, indent=2))
    write_result("head_sampling", result, options.json)


if __name__ == "__main__":
    main()

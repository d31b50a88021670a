"""A step of the heads on a GPU: time, memory, Triton kernels against plain torch, PartialFC_V2.

    python benchmarks/head_gpu.py                                # all figures; needs a CUDA device
    python benchmarks/head_gpu.py --checkout path/to/insightface  # and theirs (it is executed)

B = 1024, D = 512, rows and products in bfloat16. Cases: 10M classes at sample rate 0.1; 10M exact;
100M at 0.1 without momentum (about 100 GB). Each is timed on the kernels and on plain torch, in
turn; what does not fit is entered with the words of the error. The losses of both paths over the
first steps are in the file too. Medians of whole steps (forward, backward, update) between
synchronisations, after three that do not count. It writes results/head_gpu.json.

`--device cpu --classes 2000 --batch 32 --dim 16 --out FILE` tries the script where there is no GPU;
the figures mean nothing then. The 100M rows are drawn on the host, which takes minutes. It needs
torch, numpy and triton, and no other package.
"""

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from provenance import write_result
from torch import Tensor, distributed

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.centers import RowSGD
from manyface.kernels import SWITCH, choose

WARM_UP = 3
# name: (times --classes, sample rate, momentum)
CASES = {
    "10M, r=0.1": (1, 0.1, 0.9),
    "10M exact": (1, 1.0, 0.9),
    "100M, r=0.1, no momentum": (10, 0.1, 0.0),
}
Step = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    options = read_options()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("skipped: head_gpu.py needs a CUDA device, and torch sees none")
        return
    choice = choose(device, torch.bfloat16)
    print(f"head kernels: {choice}", flush=True)
    result: dict[str, Any] = {"kernels": str(choice), "gpu": gpu_name(), "cases": {}}
    for name, (times, rate, momentum) in CASES.items():
        for path in dict.fromkeys((choice.language, "torch")):
            with on_path(path):
                found = measured(partial(our_step, options, times, rate, momentum), options)
            result["cases"][f"{name}, {path}"] = found
            print(f"{name}, {path}: {found}", flush=True)
    if options.checkout is not None and device.type == "cuda":
        found = measured(partial(their_step, options), options)
        result["cases"]["10M, r=0.1, PartialFC_V2"] = found
        print(f"PartialFC_V2: {found}", flush=True)
    print(write_result("head_gpu", result, options.out))


def gpu_name() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkout", help="of insightface; its code is executed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--classes", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--chunk-size", type=int, default=16_384, help="B x chunk stays in L2")
    parser.add_argument("--out", type=Path, help="another file for the result")
    return parser.parse_args()


@contextmanager
def on_path(path: str) -> Iterator[None]:
    """The kernels where they are chosen, or plain torch in their place."""
    with patch.dict(os.environ, {SWITCH: "torch"} if path == "torch" else {}):
        yield


def our_step(options: argparse.Namespace, times: int, rate: float, momentum: float) -> Step:
    head = mf.PartialFC if rate < 1.0 else mf.FullFC
    built = head(
        num_classes=times * options.classes,
        dim=options.dim,
        margin=mf.CosFace(0.4),
        optimizer=RowSGD(momentum, 5e-4),
        chunk_size=options.chunk_size,
        kept_bytes=0,
        dtype=torch.bfloat16,
        device=options.device,
        **({"sample_rate": rate} if rate < 1.0 else {}),
    )

    def step(embeddings: Tensor, labels: Tensor) -> Tensor:
        loss = built(embeddings, labels)
        loss.backward()
        built.step(0.1)
        return loss.detach()

    return step


def their_step(options: argparse.Namespace) -> Step:
    """As train_v2.py makes it: fp32, CombinedMarginLoss, SGD over all rows."""
    folder = Path(options.checkout) / "recognition/arcface_torch"
    if not (folder / "partial_fc_v2.py").is_file():
        raise ConfigError(f"no recognition/arcface_torch/partial_fc_v2.py in {options.checkout}")
    sys.path.insert(0, str(folder))
    theirs, losses = import_module("partial_fc_v2"), import_module("losses")
    distributed.init_process_group("nccl", store=distributed.HashStore(), rank=0, world_size=1)
    margin = losses.CombinedMarginLoss(64.0, 1.0, 0.0, 0.4)
    head = theirs.PartialFC_V2(margin, options.dim, options.classes, 0.1, False)
    head = head.train().to(options.device)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step(embeddings: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = head(embeddings, labels.clone())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def measured(build: Callable[[], Step], options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and gigabytes of a step, and its losses; or why there are none."""
    try:
        return timed(build(), options)
    except (mf.ManyfaceError, torch.OutOfMemoryError) as error:
        return {"does_not_run": str(error).partition("\n")[0]}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def timed(step: Step, options: argparse.Namespace) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    is_cuda = options.device.startswith("cuda")
    seconds, losses = [], []
    for number in range(WARM_UP + options.steps):
        embeddings = torch.randn(options.batch, options.dim, generator=draw).to(options.device)
        labels = torch.randint(options.classes, (options.batch,), generator=draw).to(options.device)
        if is_cuda:
            torch.cuda.synchronize()
            if number == WARM_UP:
                torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        losses.append(step(embeddings.requires_grad_(), labels))
        if is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    kept = sorted(1e3 * each for each in seconds[WARM_UP:])
    return {
        "step_ms": {"median": statistics.median(kept), "min": kept[0], "max": kept[-1]},
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if is_cuda else None,
        "losses": [float(loss) for loss in losses],
    }


if __name__ == "__main__":
    main()

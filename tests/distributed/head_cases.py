"""Heads that are trained on ranks and in one process, and what is compared."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from margins_table import MARGINS, NORM_MARGINS, RULES
from torch import Tensor

import manyface as mf
from manyface.centers import RowAdamW, RowSGD
from manyface.heads import CenterHead
from manyface.heads.hard import HardNegatives
from manyface.heads.sampling import FullyRandom, Strata
from manyface.margins import AdaFace, CurricularFace
from manyface.parallel import ALONE, Ranks

DIM, STEPS = 7, 3

LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"margin": margin} for name, margin in {**MARGINS, **NORM_MARGINS}.items()},
    **{name: {"margin": mf.ArcFace(0.5), "negatives": rule} for name, rule in RULES.items()},
    "smoothing": {"margin": mf.CosFace(0.4), "label_smoothing": 0.1},
    "watching": {
        "margin": AdaFace(t_alpha=0.3),
        "negatives": CurricularFace(t_alpha=0.3),
        "label_smoothing": 0.2,
    },
    "magface_removing": {
        "margin": NORM_MARGINS["magface"],
        "negatives": RULES["filter_remove"],
        "label_smoothing": 0.2,
    },
    "sub_centers": {"margin": mf.CosFace(0.4), "sub_centers": 3},
    "sub_centers_smoothed": {"margin": mf.CosFace(0.4), "sub_centers": 2, "label_smoothing": 0.1},
    "huge_scale": {"margin": mf.CosFace(0.4), "scale": 900.0},
    "straight_through": {"margin": mf.ArcFace(0.5, gradient="straight_through")},
}
HEADS: dict[str, dict[str, Any]] = {
    "full": {},
    "partial": {"sample_rate": 0.4},
    "partial_all": {"sample_rate": 1.0},
    "positives": {"sample_rate": 0.0},
    "blocks": {"sample_rate": 0.5, "block": 4},
    "strata": {"sample_rate": 0.5, "sampler": Strata(3)},
    "random": {"sample_rate": 0.4, "sampler": FullyRandom()},
    "hard": {"sample_rate": 0.5},
}
OPTIMIZERS: dict[str, Any] = {
    "frozen": lambda: RowSGD(0.9, 5e-4),
    "lazy": lambda: RowSGD(0.9, 5e-4, "lazy-exact"),
    "decay": lambda: RowSGD(0.9, 5e-4, "decay-only"),
    "adamw": lambda: RowAdamW(weight_decay=0.1),
}


@dataclass(frozen=True)
class Case:
    """What is trained; `counts` are the samples of each rank, the same in every step."""

    counts: tuple[int, ...]
    num_classes: int = 29
    loss: str = "cosface"
    head: str = "full"
    optimizer: str = "frozen"
    dtype: torch.dtype = torch.float64
    clips: bool = False
    accumulates: bool = False


@dataclass(frozen=True)
class Trained:
    """What came of it: losses, gradients of this rank's embeddings, its rows by name."""

    losses: list[float]
    gradients: list[Tensor]
    first_row: int
    rows: dict[str, Tensor]
    sent: dict[str, int]
    centers: Tensor
    lists: Tensor | None


def make_head(case: Case, ranks: Ranks) -> CenterHead:
    """With parts of its own: running averages are shared otherwise."""
    options: dict[str, Any] = {
        "num_classes": case.num_classes,
        "dim": DIM,
        "scale": 16.0,
        "seed": 5,
        "chunk_size": 8,
        "dtype": case.dtype,
        "optimizer": OPTIMIZERS[case.optimizer](),
        "ranks": ranks,
        **copy.deepcopy(LOSSES[case.loss]),
        **HEADS[case.head],
    }
    if case.head == "hard":  # one with lists of its own, all made within the steps
        options["sampler"] = HardNegatives(
            case.num_classes,
            share=0.6,
            neighbours=min(4, case.num_classes - 1),
            refresh_steps=STEPS - 1,
        )
    return mf.FullFC(**options) if case.head == "full" else mf.PartialFC(**options)


def batch(case: Case, step: int) -> tuple[Tensor, Tensor]:
    """Embeddings and labels of all ranks."""
    draw = torch.Generator().manual_seed(step)
    size = sum(case.counts)
    embeddings = 4 * torch.randn(size, DIM, generator=draw, dtype=torch.float64)
    return embeddings, torch.randint(case.num_classes, (size,), generator=draw)


def train(case: Case) -> Trained:
    """On this rank, its part of every batch."""
    return _train(case, Ranks())


def train_alone(case: Case) -> Trained:
    """The same in one process."""
    return _train(Case(**{**vars(case), "counts": (sum(case.counts),)}), ALONE)


def _train(case: Case, ranks: Ranks) -> Trained:
    head = make_head(case, ranks)
    first = sum(case.counts[: ranks.rank])
    mine = slice(first, first + case.counts[ranks.rank])
    losses, gradients = [], []
    for step in range(STEPS):
        for part in range(1 + case.accumulates):
            embeddings, labels = batch(case, 10 * step + part)
            x = embeddings[mine].clone().requires_grad_()
            loss = head(x, labels[mine])
            loss.backward()
            losses.append(loss.item())
            assert x.grad is not None
            gradients.append(x.grad / ranks.size)  # of the mean over all samples
        if case.clips:
            losses.append(float(head.clip_grad_norm_(0.05)))
        head.step(0.3)
    head.centers.flush()
    return Trained(
        losses,
        gradients,
        head.centers.first_row,
        {name: values.clone() for name, values in head.centers.named_buffers()},
        dict(ranks.sent),
        head.class_centers(torch.tensor([0, case.num_classes - 1, case.num_classes // 2])),
        dict(head.named_buffers()).get("sampler.nearest"),
    )

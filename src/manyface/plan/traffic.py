"""What ranks say to each other in an update: bytes that one passes in, and seconds of the wire.

With W ranks, B images of the fullest one, dimension D: no logits travel and no center's gradient,
so nothing grows with the number of classes.

    counts                 all-gather      16           a batch's size, and whether labels are right
    labels                 all-gather      8 B          before the backbone runs
    embeddings             all-gather      4 B D        the trainer makes them float32
    target cosines         all-reduce      4 W B        where a margin or rule keeps averages
    target logits          all-reduce      4 W B        with a rule, or logits that need a shift
    largest logits         all-reduce      4 W B        with logits that need a shift
    sums                   all-reduce      8 W B        4 W B with target logits; label smoothing
                                                        has 8 W B more
    embedding gradients    reduce-scatter  4 W B D
    backbone gradients     all-reduce      4 P          P parameters; once in an update (DDP)
    batch norm statistics  all-reduce      4 S          S running means and variances; once
    stop and save          all-reduce      24           once, before the step

Of F2C, whose trainer plans a batch's labels ahead, O of all probes outside of the pool at most, k
rows that each of them is pushed from; sums and hardest cosines once for each feature of a slot:

    counts                 all-gather      24
    gallery features       all-gather      4 (B / 2) D  in each pass, as all that follow
    embeddings             all-gather      4 (B / 2) D
    sums                   all-reduce      8 W (B / 2)  at most: probes outside have none
    hardest cosines        all-gather      4 k O
    embedding gradients    reduce-scatter  4 W (B / 2) D

A ring of W sends W - 1 times what an all-gather is passed, (W - 1) / W of what a reduce-scatter is,
and 2 (W - 1) / W of what an all-reduce is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, log2

import torch

from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.heads.pool import GALLERY, HARDEST, default_hard_negatives
from manyface.margins import Stateful
from manyface.plan.gpus import Cluster
from manyface.softmax.streamed import needs_shift
from manyface.softmax.sub_centers import Unchanged
from manyface.train.build_model import build_margin, build_negatives
from manyface.train.copies import STATISTICS

GATHER, REDUCE, SCATTER = "all-gather", "all-reduce", "reduce-scatter"
EMBEDDING = 4  # bytes of a component: 2 where embeddings travel as autocast makes them
OF_LINK = 0.7  # of the bandwidth, that collectives reach
LATENCY, LATENCY_OF_DOUBLING = 20e-6, 10e-6  # of one; more for each doubling of machines
_BUCKET = 25 * 2**20  # DDP's: the last one is waited for


@dataclass(frozen=True)
class Collective:
    """One of an update, all its calls together.

    Attributes:
        name: as `parallel.Ranks` counts it; DDP's is "backbone gradients".
        kind: GATHER, REDUCE or SCATTER.
        passed: bytes that a rank passes in, in one call.
        calls: in an update.
        moved: bytes that a rank sends in an update.
        seconds: of the wire.
        waited: of them, what no arithmetic hides.
    """

    name: str
    kind: str
    passed: int
    calls: int = 1
    moved: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def collectives(
    config: Config,
    cluster: Cluster,
    *,
    active: int,
    gradients: int,
    statistics: int,
    net_seconds: float,
    head_seconds: float,
) -> tuple[Collective, ...]:
    """Those of an update of `config`; none where a rank is alone.

    Args:
        config: the recipe, with the batch of a rank.
        cluster: whose wires they take.
        active: classes that a step scores on all ranks.
        gradients: bytes of the backbone's.
        statistics: bytes of the batch norms'.
        net_seconds: of a batch, whose backward half hides the backbone's gradients.
        head_seconds: of a batch, whose half that moves the rows hides the embeddings' gradients.
    """
    if cluster.gpus == 1:
        return ()
    of_head = _of_the_pool if config.head.method == "f2c" else _of_the_head
    under = {EMBEDDING_GRADIENTS: head_seconds / 2, BACKBONE_GRADIENTS: net_seconds / 2}
    found = (
        *of_head(config, cluster.gpus, active),
        Collective(BACKBONE_GRADIENTS, REDUCE, gradients),
        Collective(STATISTICS, REDUCE, statistics),
        Collective(STOP_AND_SAVE, REDUCE, 24),
    )
    return tuple(_timed(each, cluster, hidden=under.get(each.name, 0.0)) for each in found)


EMBEDDING_GRADIENTS, BACKBONE_GRADIENTS = "embedding gradients", "backbone gradients"
STOP_AND_SAVE = "stop and save"


def _of_the_head(config: Config, ranks: int, active: int) -> Iterator[Collective]:
    """Of every batch."""
    batch, dim = config.train.batch_size, config.backbone.embedding_size
    times = config.optimizer.accumulation
    yield Collective("counts", GATHER, 16, times)
    yield Collective("labels", GATHER, 8 * batch, times)
    yield Collective("embeddings", GATHER, EMBEDDING * batch * dim, times)
    for name, numbers in _of_samples(config, active):
        yield Collective(name, REDUCE, 4 * numbers * ranks * batch, times)
    yield Collective(EMBEDDING_GRADIENTS, SCATTER, 4 * ranks * batch * dim, times)


def _of_the_pool(config: Config, ranks: int, slots: int) -> Iterator[Collective]:
    """Of every batch, half of which are a pass's probes."""
    pool, dim, times = config.pool, config.backbone.embedding_size, config.optimizer.accumulation
    probes, passes = -(-config.train.batch_size // 2), times * pool.passes
    outside = ceil((1 - pool.identity_share) * ranks * probes) if pool.outlier_weight else 0
    nearest = 4 * (pool.hard_negatives or default_hard_negatives(slots)) * outside
    yield Collective("counts", GATHER, 24, times)
    yield Collective(GALLERY, GATHER, 4 * probes * dim, passes)
    yield Collective("embeddings", GATHER, EMBEDDING * probes * dim, passes)
    yield Collective("sums", REDUCE, 8 * ranks * probes, passes * pool.features)
    if outside:
        yield Collective(HARDEST, GATHER, nearest, passes * pool.features)
    yield Collective(EMBEDDING_GRADIENTS, SCATTER, 4 * ranks * probes * dim, passes)


def _of_samples(config: Config, active: int) -> Iterator[tuple[str, int]]:
    """All-reduces of numbers of each sample, and how many numbers (softmax/streamed.py)."""
    if config.head.method in WITHOUT_CENTERS:
        yield "sums", 2
        return
    rule, smoothed = build_negatives(config), config.head.label_smoothing > 0
    if any(isinstance(part, Stateful) for part in (build_margin(config), rule)):
        yield "target cosines", 1
    if rule is None and smoothed and config.head.sub_centers > 1:
        rule = Unchanged()  # as in softmax/streamed.py
    most = config.head.scale * (1.0 if rule is None else rule.bound)
    shifts = needs_shift(most, num_rows=active * config.head.sub_centers, dtype=torch.float32)
    if is_known := rule is not None or shifts:
        yield "target logits", 1
    if shifts:
        yield "largest logits", 1
    yield "sums", 2 - is_known + 2 * smoothed


def _timed(each: Collective, cluster: Cluster, *, hidden: float) -> Collective:
    """With bytes and seconds of all its calls; what is `hidden` has at least its end waited for."""
    ranks = cluster.gpus
    moved = (
        each.passed * (ranks - 1) * {GATHER: 1.0, REDUCE: 2 / ranks, SCATTER: 1 / ranks}[each.kind]
    )
    latency = LATENCY + LATENCY_OF_DOUBLING * ceil(log2(cluster.machines))
    one = latency + moved / (OF_LINK * cluster.ring_bandwidth)
    least = one if hidden == 0 else latency
    if each.name == BACKBONE_GRADIENTS:
        least = latency + (one - latency) * min(1.0, _BUCKET / max(1, each.passed))
    waited = each.calls * max(least, one - hidden)
    return replace(each, moved=int(moved) * each.calls, seconds=each.calls * one, waited=waited)

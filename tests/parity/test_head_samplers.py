"""PartialFC with each sampler: the oracle over its sample, exact resume, what is refused."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from margins_table import NORM_MARGINS
from torch import Tensor, nn

import manyface as mf
from manyface.base.errors import ConfigError
from manyface.centers import InFiles
from manyface.heads.balanced import ClassBalanced, balance_weights
from manyface.heads.hard import HardNegatives, nearest_classes
from manyface.heads.row_order import SHUFFLED_FROM
from manyface.heads.sampling import FullyRandom, RowSampler, Strata, Uniform
from manyface.margins import CurricularFace
from manyface.softmax.dense import class_cosines

CLASSES, DIM, BATCH = 53, 11, 17
KINDS = ["uniform", "strata", "balanced", "hard", "random"]


def sampler(kind: str, num_classes: int = CLASSES) -> RowSampler:
    counts = 1 + np.arange(num_classes) % 37
    refresh_steps = 4 if num_classes < 10_000 else 400
    make = {
        "uniform": Uniform,
        "random": FullyRandom,
        "strata": lambda: Strata(4),
        "balanced": lambda: ClassBalanced(balance_weights(counts)),
        "hard": lambda: HardNegatives(num_classes, neighbours=3, refresh_steps=refresh_steps),
    }
    return make[kind]()


def head(kind: str, **options: object) -> mf.PartialFC:
    num_classes = options.get("num_classes", CLASSES)
    shared = {
        "num_classes": CLASSES,
        "dim": DIM,
        "margin": mf.CosFace(0.4),
        "scale": 20.0,
        "seed": 7,
        "chunk_size": 8,
        "sample_rate": 0.6,
        "dtype": torch.float64,
        "sampler": sampler(kind, num_classes),  # type: ignore[arg-type]
    }
    return mf.PartialFC(**(shared | options))  # type: ignore[arg-type]


def batches(count: int, num_classes: int = CLASSES) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64),
            torch.randint(num_classes, (BATCH,), generator=draw),
        )
        for _ in range(count)
    ]


def step(one: mf.PartialFC, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss = one(*batch)
    loss.backward()
    one.step(0.1)
    return loss.detach()


def oracle_loss(embeddings: Tensor, rows: Tensor, targets: Tensor, sub_centers: int) -> Tensor:
    """Samples without their class are scored as if it were at cosine 0."""
    cosines = class_cosines(embeddings, rows, sub_centers=sub_centers)
    has = targets >= 0
    own = cosines.gather(1, targets.clamp_min(0)[:, None])[:, 0] - 0.4
    own_logit = torch.where(has, own, 0.0)[:, None]
    others = torch.ones_like(cosines, dtype=torch.bool)
    others[has, targets[has]] = False
    logits = 20.0 * torch.cat([cosines.masked_fill(~others, -torch.inf), own_logit], dim=1)
    return (logits.logsumexp(1) - logits[:, -1]).mean()


@pytest.mark.parametrize("sub_centers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_dense_softmax_over_the_sample(kind: str, sub_centers: int) -> None:
    ours = head(kind, sub_centers=sub_centers, momentum=0.0)
    rows = nn.Parameter(ours.centers.weight.clone())
    for embeddings, labels in batches(6):
        selection = ours.select(labels)
        assert selection.ids is not None
        within = torch.arange(sub_centers)
        took_part = (selection.ids[:, None] * sub_centers + within).flatten()
        oracle = oracle_loss(embeddings, rows[took_part], selection.targets, sub_centers)
        (gradient,) = torch.autograd.grad(oracle, rows)
        with torch.no_grad():
            rows[took_part] -= 0.1 * (gradient + 5e-4 * rows)[took_part]
        loss = step(ours, (embeddings, labels))
        torch.testing.assert_close(loss, oracle.detach(), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


def test_samples_whose_class_takes_no_part_are_penalised_for_their_length() -> None:
    one = head("random", margin=NORM_MARGINS["magface"])
    embeddings, labels = batches(1)[0]
    absent = one.select(labels).targets < 0
    assert 0 < int(absent.sum()) < BATCH

    def loss(embeddings: Tensor) -> Tensor:
        one.zero_grad()
        return one(embeddings, labels)

    assert torch.autograd.gradcheck(loss, (embeddings.requires_grad_(),))
    (gradient,) = torch.autograd.grad(loss(embeddings), embeddings)
    assert bool(((gradient * embeddings).sum(dim=1)[absent].abs() > 1e-3).all())


def test_samples_whose_class_takes_no_part_have_no_cosine_to_average() -> None:
    rule = CurricularFace(t_alpha=1.0)
    one = head("random", negatives=rule)
    embeddings, labels = batches(1)[0]
    targets = one.select(labels).targets
    own = nn.functional.cosine_similarity(embeddings, one.class_centers(labels))
    one(embeddings, labels)
    torch.testing.assert_close(rule.running["t"], own[targets >= 0].mean())
    one.sample_size, before = 0, rule.running["t"]
    one(embeddings, labels)
    assert rule.running["t"] is before


@pytest.mark.parametrize("num_classes", [CLASSES, SHUFFLED_FROM + 3])
@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_exact(kind: str, num_classes: int) -> None:
    """Also across a refresh of hard negatives: the stop is after three of four steps."""
    options = {"num_classes": num_classes, "sample_rate": 0.01 if num_classes > 100 else 0.6}
    data = batches(10, num_classes)
    straight, first, second = (head(kind, **options) for _ in range(3))
    losses = [step(straight, batch) for batch in data]
    for batch in data[:3]:
        step(first, batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each in (first, second):  # the saved head goes on as well as the loaded one
        assert [step(each, batch) for batch in data[3:]] == losses[3:]
        state, expected = each.state_dict(), straight.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_lists_are_of_the_centers_after_their_step() -> None:
    one = head("hard", sub_centers=2)
    before = one.sampler.nearest.clone()  # type: ignore[attr-defined]
    for number, batch in enumerate(batches(4)):
        step(one, batch)
        mine = slice(number * CLASSES // 4, (number + 1) * CLASSES // 4)
        before[mine] = nearest_classes(one.centers, mine, count=3, sub_centers=2)
        assert torch.equal(one.sampler.nearest, before)  # type: ignore[attr-defined]


def test_hard_negatives_are_harder() -> None:
    """The largest cosine of a negative in the sample, on average over steps."""
    hardest = {}
    for kind in ("uniform", "hard"):
        one = head(kind, num_classes=2000, sample_rate=0.05)
        if kind == "hard":
            for turn in range(4):
                one.sampler.follow(one.centers, sub_centers=1, step=turn)  # type: ignore[attr-defined]
        found = []
        for number, (_, labels) in enumerate(batches(20, 2000)):
            one.num_steps = number
            ids = one.select(labels).ids
            assert ids is not None
            negatives = ids[~torch.isin(ids, labels)]
            unit = nn.functional.normalize(one.centers.weight, dim=1)
            found.append((unit[labels] @ unit[negatives].T).amax(dim=1).mean())
        hardest[kind] = float(torch.stack(found).mean())
    assert hardest["hard"] > hardest["uniform"] + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_centers_in_files_are_asked_for_and_train_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, not classes: with two centers a class a block of classes is twice as many rows."""
    in_files, in_memory = (
        head(kind, sub_centers=2, place=InFiles(tmp_path)),
        head(kind, sub_centers=2),
    )
    asked = []
    monkeypatch.setattr(in_files.centers, "read_ahead", lambda draw: asked.append(draw()))
    for number, batch in enumerate(batches(5)):
        assert torch.equal(step(in_files, batch), step(in_memory, batch))
        expected = in_files.sampler.foreseen(in_files._sample_of(number + 1))
        assert asked[-1].size == 2 * expected.size
        assert (asked[-1].starts == 2 * expected.starts).all()
    assert len(asked) == 6, "the first step and the one after each"
    assert torch.equal(in_files.centers.weight, in_memory.centers.weight)


def test_forwards_that_are_not_trained_change_no_list() -> None:
    one = head("hard")
    before = one.sampler.nearest.clone()  # type: ignore[attr-defined]
    with torch.no_grad():
        one(*batches(1)[0])
    one(*batches(1)[0])
    assert torch.equal(one.sampler.nearest, before)  # type: ignore[attr-defined]


def test_bfloat16_centers_have_neighbours_too() -> None:
    one = head("hard", dtype=torch.bfloat16)
    embeddings, labels = batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step(one, (embeddings.float(), labels))
    assert bool((one.sampler.nearest[: CLASSES // 4] >= 0).all())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["uniform", "strata", "balanced"])
def test_samplers_without_state_add_nothing_to_a_checkpoint(kind: str) -> None:
    assert head(kind).state_dict().keys() == head("uniform", sampler=None).state_dict().keys()


def test_blocks_of_a_sample_that_is_all_or_none() -> None:
    for rate in (0.0, 1.0):
        step(head("uniform", sampler=Uniform(128), sample_rate=rate), batches(1)[0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="HardNegatives"):
        head("uniform", sampler=HardNegatives(CLASSES + 1))
    with pytest.raises(ConfigError, match="not both"):
        head("uniform", sampler=Uniform(), block=3)
    with pytest.raises(ConfigError, match=r"blocks of at most 31 rows, .* of 53, got 32"):
        head("uniform", sampler=Uniform(32))
    with pytest.raises(ConfigError, match=r"blocks of at most 7 rows, .* of 13, got 8"):
        head("strata", sampler=Strata(4, 8))
    with pytest.raises(RuntimeError, match=r"Missing key.*sampler\.nearest"):
        head("hard").load_state_dict(head("uniform").state_dict())

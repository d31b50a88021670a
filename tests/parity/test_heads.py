"""Heads against the oracle: training steps, row sparsity, accumulation, and what is refused."""

import copy
import pickle
import weakref

import pytest
import torch
from margins_table import MARGINS
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import manyface as mf
from manyface.base.errors import CheckpointError, ConfigError, LabelError, NonFiniteError
from manyface.heads import CenterHead
from manyface.heads.row_order import SHUFFLED_FROM
from manyface.heads.sampling import block_size
from manyface.softmax import dense_margin_softmax, streamed_margin_softmax

CLASSES, DIM, BATCH = 53, 11, 17


def batches(
    count: int, *, classes: int = CLASSES, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64).to(dtype),
            torch.randint(classes, (BATCH,), generator=draw),
        )
        for _ in range(count)
    ]


def full(**options: object) -> mf.FullFC:
    return mf.FullFC(**(defaults() | options))


def partial(**options: object) -> mf.PartialFC:
    return mf.PartialFC(**(defaults() | options))


def defaults() -> dict[str, object]:
    return {
        "num_classes": CLASSES,
        "dim": DIM,
        "margin": mf.CosFace(0.4),
        "scale": 64.0,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "seed": 7,
        "chunk_size": 8,
        "dtype": torch.float64,
    }


def train(head: CenterHead, data: list[Tensor], *, lr: float = 0.1) -> list[Tensor]:
    losses = []
    for embeddings, labels in data:
        loss = head(embeddings, labels)
        loss.backward()
        head.step(lr)
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())
def test_full_fc_trains_as_dense_softmax_with_torch_sgd(margin: mf.Margin) -> None:
    margin = copy.deepcopy(margin)  # which takes in batches
    head = full(margin=margin)
    rows = nn.Parameter(head.centers.weight.clone())
    optimizer = torch.optim.SGD([rows], lr=0.1, momentum=0.9, weight_decay=5e-4)
    for embeddings, labels in batches(6):
        ours, theirs = (embeddings.clone().requires_grad_() for _ in range(2))
        loss = head(ours, labels)
        (0.5 * loss).backward()
        head.step(0.1)
        oracle = dense_margin_softmax(theirs, rows, labels, margin=margin, scale=64.0)
        optimizer.zero_grad()
        (0.5 * oracle).backward()
        optimizer.step()
        torch.testing.assert_close(loss, oracle, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(head.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", MARGINS.values(), ids=MARGINS.keys())
def test_partial_fc_at_rate_one_is_full_fc_bit_for_bit(
    margin: mf.Margin, dtype: torch.dtype
) -> None:
    own = [copy.deepcopy(margin) for _ in range(2)]  # running averages are not shared
    heads = [
        full(margin=own[0], dtype=dtype),
        partial(margin=own[1], dtype=dtype, sample_rate=1.0),
    ]
    data = batches(5, dtype=dtype)
    curves = [train(head, data) for head in heads]
    assert [loss.item().hex() for loss in curves[0]] == [loss.item().hex() for loss in curves[1]]
    assert torch.equal(heads[0].centers.weight, heads[1].centers.weight)
    assert torch.equal(heads[0].centers.velocity, heads[1].centers.velocity)


@pytest.mark.parametrize("sample_rate", [0.0, 0.05, 0.3, 0.9])
def test_partial_fc_is_dense_softmax_over_its_sample(sample_rate: float) -> None:
    head = partial(sample_rate=sample_rate)
    embeddings, labels = batches(1)[0]
    embeddings.requires_grad_()
    before = head.centers.weight.clone().requires_grad_()
    ids = head.select(labels).ids
    loss = head(embeddings, labels)
    loss.backward()
    head.step(0.1)
    mine = embeddings.grad
    oracle = dense_margin_softmax(
        embeddings, before[ids], torch.searchsorted(ids, labels), margin=head.margin, scale=64.0
    )
    expected, of_rows = torch.autograd.grad(oracle, (embeddings, before))
    torch.testing.assert_close(loss, oracle, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
    moved = before.detach() - 0.1 * (of_rows + 5e-4 * before.detach())
    torch.testing.assert_close(head.centers.weight[ids], moved[ids], rtol=1e-9, atol=1e-12)


def test_rows_that_took_no_part_keep_their_bits() -> None:
    head = partial(sample_rate=0.4)
    for embeddings, labels in batches(5):
        weight, velocity = head.centers.weight.clone(), head.centers.velocity.clone()
        ids = head.select(labels).ids
        train(head, [(embeddings, labels)])
        untouched = torch.ones(CLASSES, dtype=torch.bool)
        untouched[ids] = False
        assert torch.equal(head.centers.weight[untouched], weight[untouched])
        assert torch.equal(head.centers.velocity[untouched], velocity[untouched])
        assert bool((head.centers.weight[ids] != weight[ids]).any(dim=1).all())


@pytest.mark.parametrize("make", [full, partial])
def test_accumulated_backwards_add_up(make: object) -> None:
    one, two = make(), make()  # type: ignore[operator]
    if isinstance(two, mf.PartialFC):
        one.sample_size = two.sample_size = 30
    data = batches(2)
    for embeddings, labels in data:
        (two(embeddings, labels) / 2).backward()
    two.step(0.1)
    total = None
    for embeddings, labels in data:
        (one(embeddings, labels) / 2).backward()
        gradients = one.row_gradients()
        dense = torch.zeros(CLASSES, DIM, dtype=torch.float64)
        ids = torch.arange(CLASSES) if gradients.ids is None else gradients.ids
        total = dense.index_add(0, ids, gradients.values)
    assert total is not None
    expected = one.centers.weight[ids] - 0.1 * (total[ids] + 5e-4 * one.centers.weight[ids])
    torch.testing.assert_close(two.centers.weight[ids], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("make", [full, partial])
def test_unfused_step_is_the_fused_step(make: object) -> None:
    fused, unfused = make(), make()  # type: ignore[operator]
    embeddings, labels = batches(1)[0]
    for head in (fused, unfused):
        head(embeddings, labels).backward()
    assert float(unfused.grad_norm()) > 0
    for head in (fused, unfused):
        head.step(0.1)
    torch.testing.assert_close(unfused.centers.weight, fused.centers.weight, rtol=1e-12, atol=1e-15)


def test_clipping_bounds_the_norm() -> None:
    head = full()
    embeddings, labels = batches(1)[0]
    head(embeddings, labels).backward()
    before = head.clip_grad_norm_(0.5)
    assert float(before) > 0.5
    assert float(head.grad_norm()) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("make", [full, partial])
def test_losses_without_backward_change_nothing(make: object) -> None:
    head, plain = make(), make()  # type: ignore[operator]
    (embeddings, labels), other = batches(2)
    head(*other)  # dropped
    with torch.no_grad():
        head(*other)
    for each in (head, plain):
        train(each, [(embeddings, labels)])
    assert torch.equal(head.centers.weight, plain.centers.weight)


def test_second_backward_through_one_graph_adds() -> None:
    once, twice = full(), full()
    embeddings, labels = batches(1)[0]
    (2 * once(embeddings, labels)).backward()
    loss = twice(embeddings, labels)
    loss.backward(retain_graph=True)
    loss.backward()
    for head in (once, twice):
        head.step(0.1)
    torch.testing.assert_close(twice.centers.weight, once.centers.weight, rtol=1e-12, atol=0)


def test_a_step_uses_up_its_backwards() -> None:
    """One graph, backward and step twice: the second step moves by the second backward alone."""
    head, fresh = full(), full()
    embeddings, labels = batches(1)[0]
    loss = head(embeddings, labels)
    loss.backward(retain_graph=True)
    head.zero_grad()
    loss.backward()
    head.step(0.1)
    train(fresh, [(embeddings, labels)])
    assert torch.equal(head.centers.weight, fresh.centers.weight)


@pytest.mark.parametrize("make", [full, partial])
def test_a_loss_from_before_a_step_is_refused_after_it(make: object) -> None:
    head = make()  # type: ignore[operator]
    first, second = batches(2)
    stale, loss = head(*first), head(*second)
    loss.backward()
    head.step(0.1)
    with pytest.raises(RuntimeError, match="centers have changed"):
        stale.backward()
    waiting = head(*first)
    head.load_state_dict(head.state_dict())
    with pytest.raises(RuntimeError, match="centers have changed"):
        waiting.backward()


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("make", [full, partial])
def test_a_loss_that_is_kept_keeps_nothing_of_its_step(make: object, clips: bool) -> None:
    head = make()  # type: ignore[operator]
    loss = head(*batches(1)[0])
    loss.backward(retain_graph=True)
    passed = head._pending[0].forward
    parts = [weakref.ref(part) for part in (passed.rows, passed._residual)]
    if clips:
        head.clip_grad_norm_(0.5)
        assert passed._residual.kept is None
    head.step(0.1)
    assert [part() for part in parts] == [None, None]
    with pytest.raises(RuntimeError, match="centers have changed"):
        loss.backward()


@pytest.mark.parametrize("make", [full, partial])
def test_backward_again_after_row_gradients_adds(make: object) -> None:
    once, twice = make(), make()  # type: ignore[operator]
    embeddings, labels = batches(1)[0]
    (2 * once(embeddings, labels)).backward()
    loss = twice(embeddings, labels)
    loss.backward(retain_graph=True)
    twice.row_gradients()
    loss.backward()
    for head in (once, twice):
        head.step(0.1)
    torch.testing.assert_close(twice.centers.weight, once.centers.weight, rtol=1e-12, atol=1e-15)


def test_load_forgets_gradients_of_other_centers() -> None:
    head = full()
    head(*batches(1)[0]).backward()
    head.load_state_dict(full(seed=8).state_dict())
    with pytest.raises(RuntimeError, match="no gradient"):
        head.step(0.1)


@pytest.mark.parametrize("streamed", [True, False])
def test_double_backward_is_refused(streamed: bool) -> None:
    embeddings, labels = batches(1)[0]
    embeddings.requires_grad_()
    head = full()
    loss = (
        streamed_margin_softmax(
            embeddings, head.centers.weight, labels, margin=mf.CosFace(0.4), scale=64.0
        )
        if streamed
        else head(embeddings, labels)
    )
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(loss, embeddings, create_graph=True)


def test_loss_scale_is_taken_out() -> None:
    scaled, plain = full(), full()
    embeddings, labels = batches(1)[0]
    (scaled(embeddings, labels) * 1024).backward()
    scaled.step(0.1, grad_scale=1024.0)
    train(plain, [(embeddings, labels)])
    assert torch.equal(scaled.centers.weight, plain.centers.weight)


@pytest.mark.parametrize("max_norm", [0.3, 1e9])
@pytest.mark.parametrize("make", [full, partial])
def test_accumulation_clipping_and_momentum_are_those_of_torch(
    make: object, max_norm: float
) -> None:
    """Six steps of one to three micro-batches against autograd and torch.optim.SGD."""
    head = make()  # type: ignore[operator]
    rows = nn.Parameter(head.centers.weight.clone())
    velocity = torch.zeros_like(rows)
    data = iter(batches(12))
    for step in range(6):
        took_part = torch.zeros(CLASSES, dtype=torch.bool)
        parts = [next(data) for _ in range(1 + step % 3)]
        gradient = torch.zeros_like(rows)
        for embeddings, labels in parts:
            ids = head.select(labels).ids
            ids = torch.arange(CLASSES) if ids is None else ids
            took_part[ids] = True
            targets = torch.searchsorted(ids, labels)
            loss = dense_margin_softmax(
                embeddings, rows[ids], targets, margin=head.margin, scale=64.0
            )
            gradient += torch.autograd.grad(loss / len(parts), rows)[0]
            (head(embeddings, labels) / len(parts)).backward()
        head.clip_grad_norm_(max_norm)
        head.step(0.1)
        gradient *= min(1.0, max_norm / (float(gradient.norm()) + 1e-6))
        with torch.no_grad():
            moved = 0.9 * velocity + gradient + 5e-4 * rows
            velocity[took_part] = moved[took_part]
            rows[took_part] -= 0.1 * velocity[took_part]
        torch.testing.assert_close(head.centers.weight, rows.detach(), rtol=1e-9, atol=1e-12)


def test_no_gradient_and_inference_give_the_loss_alone() -> None:
    head = partial()
    embeddings, labels = batches(1)[0]
    loss = head(embeddings, labels).detach()
    with torch.no_grad():
        assert torch.equal(head(embeddings, labels), loss)
    with torch.inference_mode():
        assert torch.equal(head(embeddings, labels), loss)
        frozen = embeddings.clone()
    head(frozen, labels).backward()
    head.step(0.1)
    assert head.num_steps == 1


def test_head_survives_pickle_and_copy() -> None:
    head = partial()
    for twin in (pickle.loads(pickle.dumps(head)), copy.deepcopy(head)):
        assert torch.equal(twin(*batches(1)[0]), head(*batches(1)[0]))


def test_unfused_mode_under_autocast_is_the_one_outside() -> None:
    inside, outside = partial(dtype=torch.float32), partial(dtype=torch.float32)
    data = batches(2, dtype=torch.float32)
    for head, enabled in ((inside, True), (outside, False)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            for embeddings, labels in data:
                head(embeddings, labels).backward()
            head.grad_norm()
            head.step(0.1)
    assert torch.equal(inside.centers.weight, outside.centers.weight)


def test_a_margin_may_read_the_lengths_of_embeddings() -> None:
    class ByLength:
        gradient = "exact"

        def __call__(self, cosine: Tensor, norms: Tensor | None = None) -> Tensor:
            assert norms is not None
            return cosine - 0.1 * norms.clamp_max(9.0)

    head = full(margin=ByLength())
    embeddings, labels = batches(1)[0]
    oracle = dense_margin_softmax(
        embeddings, head.centers.weight, labels, margin=ByLength(), scale=64.0
    )
    torch.testing.assert_close(head(embeddings, labels).detach(), oracle, rtol=1e-10, atol=1e-12)


def test_no_tensor_of_batch_times_classes_exists() -> None:
    """Forward, backward and step of 64 x 5000 make no tensor larger than chunk x max(B, D)."""
    head = mf.FullFC(num_classes=5000, dim=16, margin=mf.CosFace(0.4), chunk_size=128)
    embeddings = torch.randn(64, 16).requires_grad_()
    table = head.centers.weight.numel()

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, Tensor) and tensor.numel() != table:
                    self.numel = max(self.numel, tensor.numel())
            return out

    with Largest() as largest:
        head(embeddings, torch.randint(5000, (64,))).backward()
        head.step(0.1)
    assert 0 < largest.numel <= 128 * 64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_state_dict_continues_the_run_bit_for_bit(dtype: torch.dtype) -> None:
    data = batches(8)
    straight, first, second = (partial(dtype=dtype, seed=seed) for seed in (7, 7, 99))
    train(straight, data)
    train(first, data[:4])
    second.load_state_dict(first.state_dict())
    train(second, data[4:])
    assert torch.equal(second.centers.weight, straight.centers.weight)
    assert torch.equal(second.centers.velocity, straight.centers.velocity)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_any_64_bit_seed_is_saved(seed: int) -> None:
    head, other = partial(seed=seed), partial(seed=5)
    other.load_state_dict(head.state_dict())
    assert other.seed == seed
    assert torch.equal(other(*batches(1)[0]), head(*batches(1)[0]))


def test_bf16_embeddings_under_autocast_keep_the_head_in_fp32() -> None:
    head = full(dtype=torch.float32)
    backbone = nn.Linear(DIM, DIM)
    embeddings, labels = batches(1, dtype=torch.float32)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = backbone(embeddings)
        loss = head(hidden, labels)
    plain = head(hidden.detach().float(), labels)
    assert hidden.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert torch.equal(loss.detach(), plain.detach())
    loss.backward()
    assert backbone.weight.grad is not None


def test_empty_batch_is_a_step_without_effect_on_the_backbone() -> None:
    head = full()
    embeddings = torch.zeros(0, DIM, dtype=torch.float64, requires_grad=True)
    loss = head(embeddings, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0.0
    before = head.centers.weight.clone()
    head.step(0.1)
    assert torch.equal(head.centers.weight, before)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64]
)
def test_any_integer_labels_do(dtype: torch.dtype) -> None:
    embeddings, labels = batches(1)[0]
    head = full(num_classes=300)  # more classes than a narrow dtype can count
    assert torch.equal(head(embeddings, labels.to(dtype)), head(embeddings, labels))


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            torch.tensor([0, CLASSES]),
            f"label {CLASSES} at position 1 .* outside \\[0, {CLASSES}\\)",
        ),
        (torch.tensor([-1, 0]), "label -1 at position 0"),
        (torch.tensor([0.0, 1.0]), "labels must be integers, got torch.float32"),
        (torch.tensor([True, False]), "labels must be integers, got torch.bool"),
        (torch.tensor([[0], [1]]), "one label per embedding"),
    ],
)
def test_wrong_labels_are_named(labels: Tensor, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        full()(torch.randn(2, DIM), labels)


@pytest.mark.parametrize("wrong", [-1, CLASSES])
def test_centers_of_classes_that_are_none_are_refused(wrong: int) -> None:
    with pytest.raises(LabelError, match=f"label {wrong} at position 1"):
        full().class_centers(torch.tensor([0, wrong]))


def test_centers_of_classes_in_a_narrow_dtype() -> None:
    head, classes = full(), torch.tensor([2, 0, 52])
    assert torch.equal(head.class_centers(classes.to(torch.uint8)), head.class_centers(classes))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_embeddings_are_named(value: float) -> None:
    embeddings = torch.zeros(4, DIM)
    embeddings[2, 5] = value
    with pytest.raises(NonFiniteError, match=f"embedding 2 of the batch holds {value} at column 5"):
        full()(embeddings, torch.zeros(4, dtype=torch.int64))


def test_embeddings_whose_length_overflows_are_named() -> None:
    embeddings = torch.ones(3, DIM)
    embeddings[1, 4] = 1e20
    with pytest.raises(
        NonFiniteError, match=r"embedding 1 of the batch holds 1.0\d*e\+20 at column 4"
    ):
        full(dtype=torch.float32)(embeddings, torch.zeros(3, dtype=torch.int64))


def test_step_without_backward_is_refused() -> None:
    with pytest.raises(RuntimeError, match="backward"):
        full().step(0.1)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 11\], got \[2, 7\]"):
        full()(torch.zeros(2, 7), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    "options",
    [
        {"margin": 0.4},
        {"margin": mf.CosFace},
        {"scale": 0.0},
        {"chunk_size": 0},
        {"dtype": torch.float16},
        {"momentum": 1.0},
        {"num_classes": 0},
        {"seed": -1},
        {"seed": 2**64},
    ],
    ids=str,
)
def test_impossible_heads_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        full(**options)


def test_half_precision_centers_are_refused() -> None:
    with pytest.raises(ConfigError, match="float32, float64 or bfloat16"):
        full().half()(torch.zeros(2, DIM), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("lr", [float("nan"), -0.1])
def test_impossible_learning_rates_are_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="lr >= 0"):
        full().step(lr)


def test_a_loop_that_never_steps_is_warned() -> None:
    head = full()
    for _ in range(63):
        head(*batches(1)[0]).backward()
    loss = head(*batches(1)[0])
    with pytest.warns(UserWarning, match=r"without head\.step"):
        loss.backward()


def test_a_large_shuffled_table_drawn_in_blocks_equals_dense() -> None:
    """The same centers by class, whatever rows they lie in; resumed in another head."""
    num_classes = SHUFFLED_FROM + 5
    head = mf.PartialFC(
        num_classes=num_classes,
        dim=DIM,
        margin=mf.CosFace(0.3),
        scale=16.0,
        sample_rate=0.1,
        dtype=torch.float64,
        momentum=0.0,
        weight_decay=0.0,
    )
    assert block_size(head.sample_size) > 1
    for step in range(3):
        draw = torch.Generator().manual_seed(step)
        embeddings = torch.randn(40, DIM, generator=draw, dtype=torch.float64)
        labels = torch.randint(num_classes, (40,), generator=draw)
        selection = head.select(head.row_order(labels))
        assert selection.ids is not None
        rows = head.centers.weight[selection.ids].clone().requires_grad_()
        own = head.class_centers(labels)
        assert torch.equal(own, rows[selection.targets])
        expected = dense_margin_softmax(
            embeddings, rows, selection.targets, margin=mf.CosFace(0.3), scale=16.0
        )
        expected.backward()
        loss = head(embeddings, labels)
        loss.backward()
        head.step(0.1)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
        moved = rows - 0.1 * rows.grad
        torch.testing.assert_close(head.centers.weight[selection.ids], moved.detach())
    full = mf.FullFC(
        num_classes=num_classes,
        dim=DIM,
        margin=mf.CosFace(0.3),
        dtype=torch.float64,
        seed=9,
        momentum=0.0,
    )
    full.load_state_dict(head.state_dict())
    assert torch.equal(full.class_centers(labels), head.class_centers(labels))
    old = head.state_dict()
    old["_extra_state"] = old["_extra_state"][:2]
    with pytest.raises(CheckpointError, match="order of their classes"):
        full.load_state_dict(old)

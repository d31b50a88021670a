import pytest
import torch
from torch import nn

from manyface.base.errors import NonFiniteError
from manyface.data.loader import Batch
from manyface.heads import FullFC
from manyface.margins import CosFace
from manyface.train.method import Classification
from manyface.train.step import FiniteGuard, StepResult, step_randomness, train_step

CPU = torch.device("cpu")


def make_method(*, dropout: float = 0.0, clip_norm: float = 0.0) -> Classification:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(3 * 4 * 4, 5)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    backbone = nn.Sequential(nn.Flatten(), linear, nn.Dropout(dropout)).double()
    return Classification(
        backbone,
        FullFC(num_classes=7, dim=5, margin=CosFace(0.2), scale=8.0, dtype=torch.float64),
        torch.optim.SGD(backbone.parameters(), lr=1.0, momentum=0.9),
        learning_rate=0.1,
        head_learning_rate=0.2,
        device=CPU,
        clip_norm=clip_norm,
    )


def make_batch(size: int, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 4, 4, generator=generator, dtype=torch.float64)
    return Batch(images, torch.randint(0, 7, (size,), generator=generator), 0, size)


def cut(batch: Batch, *sizes: int) -> list[Batch]:
    images, labels = batch.images.split(sizes), batch.labels.split(sizes)
    return [Batch(x, y, 0, len(y)) for x, y in zip(images, labels, strict=True)]


def run(method: Classification, batches: list[Batch], *, step: int = 0) -> StepResult:
    return train_step(method, batches, step=step, factor=1.0, seed=0, guard=FiniteGuard(CPU))


def weights(method: Classification) -> list[torch.Tensor]:
    tensors = [*method.net.state_dict().values(), *method.head.state_dict().values()]
    return [tensor.clone() for tensor in tensors if tensor.is_floating_point()]


@pytest.mark.parametrize("sizes", [(6, 6), (4, 4, 4), (7, 5), (11, 1)])
def test_accumulation_averages(sizes):
    batch = make_batch(12)
    whole, parts = make_method(), make_method()
    for _ in range(3):
        one, many = run(whole, [batch]), run(parts, cut(batch, *sizes))
        torch.testing.assert_close(one.loss, many.loss, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.grad_norm, many.grad_norm, rtol=0, atol=1e-6)
    # The embeddings reach the head in fp32, where it matters how a batch was cut.
    for one, many in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(one, many, rtol=1e-5, atol=1e-6)


def test_backbone_and_head_follow_the_factor_from_their_own_base_values():
    moved = {}
    for factor in (1.0, 0.5):
        method = make_method()
        before = weights(method)
        train_step(method, [make_batch(8)], step=0, factor=factor, seed=0, guard=FiniteGuard(CPU))
        moved[factor] = [new - old for new, old in zip(weights(method), before, strict=True)]
        assert method.optimizer.param_groups[0]["lr"] == 0.1 * factor
        assert method.learning_rate(factor) == 0.1 * factor
    for full, half in zip(moved[1.0][:3], moved[0.5][:3], strict=True):  # first step: linear in lr
        torch.testing.assert_close(full, 2 * half)


def test_clipping_bounds_the_backbone_and_reports_the_norm_before():
    free, clipped = make_method(), make_method(clip_norm=1e-3)
    batch = make_batch(8)
    result, bounded = run(free, [batch]), run(clipped, [batch])
    assert torch.equal(result.grad_norm, bounded.grad_norm)
    assert result.grad_norm > 1e-3
    norm = torch.stack([p.grad.norm() for p in clipped.net.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(1e-3, dtype=torch.float64), rtol=1e-3, atol=0)
    # The head is left alone, as in the field: only its gradient's direction came from the batch.
    head = "centers.weight"
    assert torch.equal(free.head.state_dict()[head], clipped.head.state_dict()[head])


def test_dropout_depends_on_seed_and_step_only():
    losses = {}
    for step in (3, 4):
        for noise in (1, 2):
            torch.manual_seed(noise)
            method = make_method(dropout=0.5)
            losses[step, noise] = float(run(method, [make_batch(8)], step=step).loss)
    assert losses[3, 1] == losses[3, 2]
    assert losses[4, 1] == losses[4, 2]
    assert losses[3, 1] != losses[4, 1]


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with step_randomness(0, 1, device=CPU):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "loss, norm, quantity",
    [
        (float("nan"), 1.0, "the loss"),
        (float("inf"), float("nan"), "the loss"),
        (1.0, float("inf"), "the backbone's gradient norm"),
    ],
)
def test_the_guard_names_quantity_and_first_bad_step(loss, norm, quantity):
    guard = FiniteGuard(CPU)
    guard.watch(6, StepResult(torch.tensor(1.0), torch.tensor(1.0)))
    with pytest.raises(NonFiniteError, match=rf"{quantity} is not finite at step 8\b"):
        guard.watch(7, StepResult(torch.tensor(loss), torch.tensor(norm)))


def test_a_deferred_guard_remembers_the_first_bad_step():
    guard = FiniteGuard(CPU)
    guard._immediate = False  # as on a GPU
    for step in range(5):
        value = float("nan") if step >= 2 else 1.0
        guard.watch(step, StepResult(torch.tensor(value), torch.tensor(1.0)))
    with pytest.raises(NonFiniteError, match="at step 3"):
        guard.check()


def test_a_bad_loss_moves_nothing():
    method = make_method()
    before = weights(method)
    batch = make_batch(8)
    batch.images[0] = float("nan")
    with pytest.raises(NonFiniteError):
        run(method, [batch])
    assert all(torch.equal(old, new) for old, new in zip(before, weights(method), strict=True))

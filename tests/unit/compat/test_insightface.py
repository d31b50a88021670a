"""What a training script does to PartialFC_V2 besides steps: save, resume, scale, move, misuse."""

import gc
import io
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

import manyface as mf
from manyface.base.errors import ConfigError, LabelError
from manyface.compat.insightface import PartialFC_V2, UnguardedArcFace, translated
from manyface.heads.row_order import SHUFFLED_FROM
from manyface.testing.partial_fc_v2 import DensePartialFC, MarginNumbers

CLASSES, DIM, BATCH = 37, 8, 11


def make(rate: float = 0.3, **more: object) -> PartialFC_V2:
    return PartialFC_V2(MarginNumbers(s=16.0), DIM, CLASSES, rate, **{"seed": 1, **more})


def sgd(*modules: nn.Module, lr: float = 0.01) -> torch.optim.SGD:
    groups = [{"params": module.parameters()} for module in modules]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=0.1)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, DIM, generator=draw), torch.randint(CLASSES, (BATCH,), generator=draw)


def train(head: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        head(*batch(seed)).backward()
        optimizer.step()
        optimizer.zero_grad()


def restated() -> DensePartialFC:
    return DensePartialFC(MarginNumbers(s=16.0), make().weight)


def saved(*parts: nn.Module | torch.optim.Optimizer) -> list[dict[str, object]]:
    """State dicts through a file, as torch.save and its safe load leave them."""
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    file.seek(0)
    states: list[dict[str, object]] = torch.load(file, weights_only=True)
    return states


def test_a_state_is_theirs_and_goes_both_ways() -> None:
    """Three times four steps: here, continued on the dense parameter, and here again."""
    ours, dense, whole = make(), restated(), restated()
    parts = {head: sgd(head) for head in (ours, dense, whole)}
    for span, taking_part in enumerate([(ours, whole), (dense, whole), (ours, whole)]):
        for seed in range(4 * span, 4 * span + 4):
            index = ours.head.select(batch(seed)[1]).ids
            for head in taking_part:
                head(*batch(seed), *(() if head is ours else (index,))).backward()
                parts[head].step()
                parts[head].zero_grad()
        source, target = (dense, ours) if taking_part[0] is dense else (ours, dense)
        state, of_optimizer = saved(source, parts[source])
        target.load_state_dict(state)
        parts[target].load_state_dict(of_optimizer)
    assert list(ours.state_dict()) == ["weight"]
    torch.testing.assert_close(dense.weight, whole.weight)
    momenta = [parts[head].state[head.weight]["momentum_buffer"] for head in (dense, whole)]
    torch.testing.assert_close(*momenta)


def test_the_optimizers_state_alone_is_up_to_date_too() -> None:
    one, other = make(), make()
    optimizers = sgd(one), sgd(other)
    for head, optimizer in zip((one, other), optimizers, strict=True):
        train(head, optimizer, range(5))
    one.flush()
    momenta = [opt.state_dict()["state"][0]["momentum_buffer"] for opt in optimizers]
    assert torch.equal(*momenta)
    assert torch.equal(one.weight, other.weight)


def test_resumed_training_goes_on() -> None:
    whole, first = make(), make()
    optimizer, first_optimizer = sgd(whole), sgd(first)
    train(whole, optimizer, range(6))
    train(first, first_optimizer, range(3))
    resumed = make()
    resumed.head.num_steps = 3  # the draws of a seed, which their checkpoint does not hold
    resumed_optimizer = sgd(resumed)
    for part, state in zip(
        (resumed, resumed_optimizer), saved(first, first_optimizer), strict=True
    ):
        part.load_state_dict(state)
    train(resumed, resumed_optimizer, range(3, 6))
    whole.flush()
    resumed.flush()
    torch.testing.assert_close(resumed.weight, whole.weight)


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("unscales", [True, False])
def test_gradient_scaler(rate: float, unscales: bool) -> None:
    """As train_v2.py does under fp16; one step meets an infinity and is skipped."""
    plain, scaled = make(rate), make(rate)
    nets = [nn.Linear(DIM, DIM) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = sgd(nets[0], plain), sgd(nets[1], scaled)
    amp = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for seed in range(6):
        images, labels = batch(seed)
        if seed != 2:
            plain(nets[0](images), labels).backward()
            optimizers[0].step()
            optimizers[0].zero_grad()
        loss = scaled(nets[1](images), labels)
        if seed == 2:
            nets[1].weight.register_hook(lambda grad: grad * torch.inf)
            next_hook = nets[1].weight._backward_hooks
        amp.scale(loss).backward()
        if unscales:
            amp.unscale_(optimizers[1])
            nn.utils.clip_grad_norm_(nets[1].parameters(), 1e9)
        amp.step(optimizers[1])
        amp.update()
        optimizers[1].zero_grad()
        if seed == 2:
            next_hook.clear()
            scaled.head.num_steps += 1  # both draw as one step further
            plain.head.num_steps += 1
    for head in (plain, scaled):
        head.flush()
    torch.testing.assert_close(scaled.weight, plain.weight)
    torch.testing.assert_close(nets[1].weight, nets[0].weight)


def test_accumulated_batches_add_up() -> None:
    ours = make()
    theirs = restated()
    optimizers = sgd(ours), sgd(theirs)
    for first in range(0, 6, 2):
        for seed in (first, first + 1):
            index = ours.head.select(batch(seed)[1]).ids
            ours(*batch(seed)).backward()
            theirs(*batch(seed), index).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    ours.flush()
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("to_none", [True, False])
def test_zeroed_gradients_are_forgotten(to_none: bool) -> None:
    one, other = make(), make()
    optimizers = sgd(one), sgd(other)
    late = one(*batch(7))
    one(*batch(8)).backward()
    optimizers[0].zero_grad(set_to_none=to_none)
    optimizers[0].step()  # nothing to do
    assert torch.equal(one.weight, other.weight)
    late.backward()
    other(*batch(7)).backward()
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(one.weight, other.weight)
    assert not torch.equal(one.weight, make().weight)


def test_two_losses_in_one_backward() -> None:
    ours, theirs = make(1.0), restated()
    for head in (ours, theirs):
        (head(*batch(0)) + head(*batch(1))).backward()
        sgd(head).step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_another_decay_another_optimizer() -> None:
    """Constants of the group may change between steps; a new optimizer begins without momentum."""
    ours = make()
    theirs = restated()
    optimizers = [sgd(ours), sgd(theirs)]
    for seed in range(9):
        if seed == 3:
            for optimizer in optimizers:
                optimizer.param_groups[0]["weight_decay"] = 0.3
        if seed == 6:
            optimizers = [sgd(ours), sgd(theirs)]
        index = ours.head.select(batch(seed)[1]).ids
        ours(*batch(seed)).backward()
        theirs(*batch(seed), index).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    ours.flush()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_other_optimizers_and_dropped_heads_are_left_alone() -> None:
    head, net = make(), nn.Linear(DIM, DIM)
    before = head.weight.detach().clone()
    head(net(batch(0)[0]), batch(0)[1]).backward()
    sgd(net).step()
    assert torch.equal(head.weight, before)
    gc.collect()
    count = len(_global_optimizer_pre_hooks)
    del head
    gc.collect()
    assert len(_global_optimizer_pre_hooks) == count - 1


def test_moved_rows_are_those_that_train() -> None:
    """`.cuda()` gives the parameter other memory; so does this."""
    stayed, moved = make(), make()
    optimizers = sgd(stayed), sgd(moved)
    for seeds in (range(3), range(3, 6)):
        moved._apply(lambda values: values.clone())
        for head, step_by in zip((stayed, moved), optimizers, strict=True):
            train(head, step_by, seeds)
    for head in (stayed, moved):
        head.flush()
    assert torch.equal(moved.weight, stayed.weight)


def test_what_it_cannot_do_is_an_error() -> None:
    """Its gradient does not exist, so it has no norm, and none is made inside of a step."""
    head = make()
    head(*batch(0)).backward()
    with pytest.raises(NotImplementedError):
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
    head.weight.grad = None
    with pytest.raises(RuntimeError):
        sgd(head).step(lambda: head(*batch(0)).backward())


def test_labels_in_a_column_and_no_gradient() -> None:
    head = make(1.0)
    embeddings, labels = batch(0)
    with torch.no_grad():
        assert torch.equal(head(embeddings, labels[:, None]), head(embeddings, labels))
    assert not head(embeddings, labels).isnan()


def test_large_tables_are_in_the_order_of_classes() -> None:
    for rate in (1.0, 0.01):
        head = PartialFC_V2(MarginNumbers(), 2, SHUFFLED_FROM, rate).head
        assert torch.equal(head.row_order(torch.arange(9)), torch.arange(9))


def test_seed_follows_torch() -> None:
    torch.manual_seed(4)
    one = make(seed=None)
    torch.manual_seed(4)
    assert torch.equal(make(seed=None).weight, one.weight)
    torch.manual_seed(5)
    assert not torch.equal(make(seed=None).weight, one.weight)


def test_half_is_bfloat16_products() -> None:
    exact, half = make(1.0), make(1.0, fp16=True)
    assert half.head.operands == torch.bfloat16
    difference = (half(*batch(0)) - exact(*batch(0))).abs()
    assert 0 < difference < 0.05


class Numbers:
    """Attributes as given."""

    def __init__(self, **numbers: float) -> None:
        vars(self).update(numbers)


@pytest.mark.parametrize(
    "theirs, margin",
    [
        (Numbers(s=30, m1=1.0, m2=0.5, m3=0.0), UnguardedArcFace(0.5)),
        (Numbers(s=30, m1=1.0, m2=0.5, m3=0.2), mf.CosFace(0.2)),
        (Numbers(s=30, m1=1.35, m2=0.5, m3=0.2), mf.CosFace(0.2)),
        (Numbers(s=30, margin=0.3), UnguardedArcFace(0.3)),
        (Numbers(s=30, m=0.4), mf.CosFace(0.4)),
        (mf.ArcFace(0.5), mf.ArcFace(0.5)),
    ],
)
def test_margins(theirs: object, margin: mf.Margin) -> None:
    found, scale, rule = translated(theirs, scale=48.0)
    assert (found, rule) == (margin, None)
    assert scale == (48.0 if isinstance(theirs, mf.ArcFace) else 30.0)


def test_filtering_is_translated() -> None:
    theirs = MarginNumbers(interclass_filtering_threshold=0.4)
    assert translated(theirs, scale=1.0)[2] == mf.InterclassFilter(0.4, action="zero")


@pytest.mark.parametrize(
    "theirs, words",
    [
        (Numbers(s=64, m1=0.9, m2=0.4, m3=0.0), r"got Numbers with {'m1': 0.9"),
        (Numbers(s=64), "m1 = 1 and m3 = 0, or m3 > 0"),
        (Numbers(m=0.4), "margin must be a margin such as CosFace"),
        (mf.AdaFace(), "PartialFC_V2 keeps no running averages"),
        (mf.MagFace(), "PartialFC_V2 does not train the length"),
    ],
)
def test_margins_without_counterpart(theirs: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PartialFC_V2(theirs, DIM, CLASSES)


def test_wrong_labels_are_said() -> None:
    with pytest.raises(LabelError, match="label 37 at position 10"):
        make()(batch(0)[0], torch.arange(27, 38))


def test_copies_are_refused() -> None:
    with pytest.raises(TypeError, match=r"save its state_dict\(\)"):
        pickle.dumps(make())


@pytest.fixture
def group_of_one() -> Iterator[None]:
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_a_group_of_one_process(group_of_one: None) -> None:
    head = make()
    train(head, sgd(head), range(2))
    assert not torch.equal(head.weight, make().weight)

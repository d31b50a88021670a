"""A step of F2C that is refused or interrupted has not been; plans continue what is trained."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from f2c_models import DIM, Dual, planned, random_batch, small_f2c
from torch import Tensor, nn

from manyface.base.errors import ConfigError, LabelError, NonFiniteError
from manyface.data import Augmentation, DualLoader
from manyface.data.synthetic import SyntheticFaces
from manyface.heads import F2C, DynamicClassPool
from manyface.margins import CosFace

SLOTS, IDENTITIES = 7, 30


def batch_of(step: int) -> Dual:
    return random_batch(step, size=3, num_identities=IDENTITIES)


def step_of(f2c: F2C, batch: Dual) -> float:
    """A step of training, whose probe net really moves."""
    loss = f2c(batch)
    (gradient,) = torch.autograd.grad(loss, f2c.probe_net.weight)
    with torch.no_grad():
        f2c.probe_net.weight -= 0.1 * gradient
    return loss.item()


def state_of(f2c: F2C) -> dict[str, Tensor]:
    state = {k: v.clone() for k, v in f2c.state_dict().items() if isinstance(v, Tensor)}
    return state | f2c.get_extra_state()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def with_nan(batch: Dual, place: int) -> Dual:
    images = batch.images.clone()
    images[place, 0] = torch.nan
    return Dual(images, batch.labels, batch.plan)


def interrupted(f2c: F2C, module: nn.Module, call: int) -> None:
    """A step during which Ctrl-C comes in a net's forward pass number `call`."""
    calls = iter(range(call + 1))

    def interrupt(*_: object) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    hook = module.register_forward_pre_hook(interrupt)
    try:
        f2c(batch_of(99))
    finally:
        hook.remove()


def six_images_four_labels(f2c: F2C) -> None:
    batch = batch_of(99)
    f2c(Dual(batch.images, batch.labels[:4]))


def three_images(f2c: F2C) -> None:
    batch = batch_of(99)
    f2c(Dual(batch.images[:3], batch.labels[:4]))


def without_memory(f2c: F2C) -> None:
    """The loss of the second pass fails."""
    whole, calls = f2c.pool.loss, iter((True, False))

    def loss(*arguments: object) -> Tensor:
        if next(calls):
            return whole(*arguments)
        raise torch.OutOfMemoryError

    f2c.pool.loss = loss  # type: ignore[method-assign]
    try:
        f2c(batch_of(99))
    finally:
        del f2c.pool.loss


REFUSED = {
    "NaN in x": (NonFiniteError, lambda f2c: f2c(with_nan(batch_of(99), 0))),
    "NaN in y": (NonFiniteError, lambda f2c: f2c(with_nan(batch_of(99), 3))),
    "labels missing": (LabelError, six_images_four_labels),
    "three images": (ConfigError, three_images),
    "too many": (ConfigError, lambda f2c: f2c(Dual(torch.ones(16, DIM), torch.arange(16)))),
    "no memory": (torch.OutOfMemoryError, without_memory),
    **{
        f"Ctrl-C in {net}, call {call}": (
            KeyboardInterrupt,
            lambda f2c, net=net, call=call: interrupted(f2c, getattr(f2c, net), call),
        )
        for net in ("probe_net", "gallery_net")
        for call in (0, 1)
    },
}


IN_SECOND_PASS = [what for what in REFUSED if what == "no memory" or what.endswith("call 1")]


@pytest.mark.parametrize(
    "num_passes, what",
    [(2, what) for what in REFUSED] + [(1, what) for what in REFUSED if what not in IN_SECOND_PASS],
)
def test_a_twin_that_never_met_the_batch_goes_on_alike(num_passes: int, what: str):
    error, act = REFUSED[what]
    f2c, twin = (small_f2c(SLOTS, IDENTITIES, num_passes=num_passes) for _ in range(2))
    for step in range(4):
        assert step_of(f2c, batch_of(step)) == step_of(twin, batch_of(step))
    with pytest.raises(error):
        act(f2c)
    assert torch.equal(f2c.pool.slot_rows, twin.pool.slot_rows)
    for step in range(4, 8):
        assert step_of(f2c, batch_of(step)) == step_of(twin, batch_of(step))
        assert_same(state_of(f2c), state_of(twin))
    again = small_f2c(SLOTS, IDENTITIES, num_passes=num_passes)
    again.load_state_dict(f2c.state_dict())
    assert again(batch_of(8)).item() == twin(batch_of(8)).item()


@pytest.mark.parametrize("what", REFUSED)
def test_a_state_saved_after_a_refusal_goes_on_as_the_one_before_it(what: str):
    f2c, twin, resumed = (small_f2c(SLOTS, IDENTITIES) for _ in range(3))
    for step in range(2):
        assert step_of(f2c, batch_of(step)) == step_of(twin, batch_of(step))
    before = state_of(f2c)
    with pytest.raises(REFUSED[what][0]):
        REFUSED[what][1](f2c)
    after = state_of(f2c)
    for name in ("pool.slot_rows", "identities", "order", "next_rows", "num_changes"):
        assert torch.equal(after[name], before[name]), name
    resumed.load_state_dict(f2c.state_dict())
    for step in range(2, 4):
        assert step_of(resumed, batch_of(step)) == step_of(twin, batch_of(step))
    assert_same(state_of(resumed), state_of(twin))


def test_a_pair_that_batch_norm_refuses():
    def make() -> F2C:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(DIM, DIM), nn.BatchNorm1d(DIM))
        pool = DynamicClassPool(5, DIM, margin=CosFace(0.2))
        return F2C(net, pool, num_identities=IDENTITIES)

    f2c, twin = make(), make()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        f2c(Dual(torch.randn(2, DIM), torch.tensor([0, 1])))
    for step in range(3):
        batch = batch_of(step)
        small = Dual(batch.images.float(), batch.labels)
        assert f2c(small).item() == twin(small).item()
        assert torch.equal(f2c.pool.slot_rows, twin.pool.slot_rows)
        assert_same(f2c.get_extra_state(), twin.get_extra_state())
    make().load_state_dict(f2c.state_dict())


def test_a_planned_batch_that_was_refused_may_be_trained_after_all():
    f2c, twin = small_f2c(SLOTS, IDENTITIES), small_f2c(SLOTS, IDENTITIES)
    planner = f2c.planner()
    batches = [planned(batch_of(step), planner) for step in range(4)]
    with pytest.raises(NonFiniteError):
        f2c(with_nan(batches[0], 1))
    for batch in batches:
        assert f2c(batch).item() == twin(Dual(batch.images, batch.labels)).item()


def test_a_prefill_that_cannot_be_written_has_not_been(monkeypatch: pytest.MonkeyPatch):
    f2c, twin = small_f2c(SLOTS, IDENTITIES), small_f2c(SLOTS, IDENTITIES)

    def write(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(f2c.pool, "write", write)
        with pytest.raises(torch.OutOfMemoryError):
            f2c.prefill(torch.randn(4, DIM, dtype=torch.float64), torch.arange(4))
    for step in range(3):
        assert f2c(batch_of(step)).item() == twin(batch_of(step)).item()


# --- plans ----------------------------------------------------------------------------------------


def skip(f2c: F2C, batches: list[Dual]) -> None:
    f2c(batches[1])


def twice(f2c: F2C, batches: list[Dual]) -> None:
    f2c(batches[0])
    f2c(batches[0])


def two_planners(f2c: F2C, batches: list[Dual]) -> None:
    other = planned(batch_of(9), f2c.planner())
    f2c(batches[0])
    f2c(other)


def unplanned_between(f2c: F2C, batches: list[Dual]) -> None:
    f2c(batch_of(9))
    f2c(batches[0])


def prefill_after(f2c: F2C, batches: list[Dual]) -> None:
    f2c.prefill(torch.randn(4, DIM, dtype=torch.float64), torch.arange(4))
    f2c(batches[0])


def load_after(f2c: F2C, batches: list[Dual]) -> None:
    trained = small_f2c(SLOTS, IDENTITIES)
    trained(batch_of(9))
    f2c.load_state_dict(trained.state_dict())
    f2c(batches[0])


def old_state_after(f2c: F2C, batches: list[Dual]) -> None:
    """As `load_after`, of a state that did not count yet."""
    trained = small_f2c(SLOTS, IDENTITIES)
    trained(batch_of(9))
    state = trained.state_dict()
    for name in ("num_changes", "has_followed"):
        del state["_extra_state"][name]
    f2c.load_state_dict(state)
    f2c(batches[0])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (skip, "step 2 of the pool, expected step 1 "),
        *(
            (act, "step 1 of the pool, expected step 2 ")
            for act in (
                twice,
                two_planners,
                unplanned_between,
                prefill_after,
                load_after,
                old_state_after,
            )
        ),
    ],
)
def test_a_plan_that_does_not_continue_the_trained_state(act: Callable[..., None], words: str):
    f2c = small_f2c(SLOTS, IDENTITIES)
    planner = f2c.planner()
    batches = [planned(batch_of(step), planner) for step in range(2)]
    with pytest.raises(ConfigError, match=words):
        act(f2c, batches)
    assert np.isfinite(f2c(planned(batch_of(3), f2c.planner())).item())  # a new one goes on


def test_planned_and_unplanned_steps_may_take_turns():
    """Each planned one by a planner that was made after the step before it."""
    f2c, twin = small_f2c(SLOTS, IDENTITIES), small_f2c(SLOTS, IDENTITIES)
    for step in range(6):
        batch = batch_of(step)
        given = planned(batch, f2c.planner()) if step % 2 else batch
        assert f2c(given).item() == twin(batch).item()


def test_a_state_of_before_the_count_resumes():
    f2c, resumed = small_f2c(SLOTS, IDENTITIES), small_f2c(SLOTS, IDENTITIES)
    for step in range(4):
        f2c(batch_of(step))
    state = f2c.state_dict()
    for name in ("num_changes", "has_followed"):
        del state["_extra_state"][name]
    resumed.load_state_dict(state)
    planner = resumed.planner()
    for step in range(4, 7):
        assert resumed(planned(batch_of(step), planner)).item() == f2c(batch_of(step)).item()


def faces_and_f2c(prefetch: int) -> tuple[DualLoader, F2C]:
    faces = SyntheticFaces(num_identities=20, images_per_identity=3, image_size=32)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, DIM))
    f2c = F2C(net, DynamicClassPool(10, DIM, margin=CosFace(0.2)), num_identities=20)
    loader = DualLoader(
        faces,
        batch_size=8,
        seed=0,
        augmentation=Augmentation(),
        make_planner=f2c.planner,
        prefetch=prefetch,
    )
    return loader, f2c


@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_may_be_asked_for_before_the_pool_is_filled_or_loaded(prefetch: int):
    """The planner is made with the first of them."""
    loader, f2c = faces_and_f2c(prefetch)
    batches = loader.batches(0, 2)
    for batch in loader.prefill(f2c.pool.num_slots):
        f2c.prefill(batch.images, batch.labels)
    for batch in batches:
        f2c(batch)
    _, resumed = faces_and_f2c(prefetch)
    later = DualLoader(
        loader.source,
        batch_size=8,
        seed=0,
        augmentation=Augmentation(),
        make_planner=resumed.planner,
        prefetch=prefetch,
    ).batches(2, 4)
    resumed.load_state_dict(f2c.state_dict())
    for batch, same in zip(loader.batches(2, 4), later, strict=True):
        assert f2c(batch).item() == resumed(same).item()


def test_a_loaders_batch_that_is_left_out():
    loader, f2c = faces_and_f2c(prefetch=2)
    batches = loader.batches(0, 4)
    f2c(next(batches))
    next(batches)
    with pytest.raises(ConfigError, match=r"call loader.batches\(step\) anew"):
        f2c(next(batches))
    batches.close()
    for batch in loader.batches(2, 4):
        f2c(batch)


# --- what else is refused -------------------------------------------------------------------------


def test_eval_mode_is_no_mode_to_train_in():
    f2c, twin = small_f2c(SLOTS, IDENTITIES).eval(), small_f2c(SLOTS, IDENTITIES)
    with pytest.raises(ConfigError, match=r"eval mode.*f2c.train\(\).*f2c.probe_net to embed"):
        f2c(batch_of(0))
    assert f2c.train()(batch_of(1)).item() == twin(batch_of(1)).item()


@pytest.mark.parametrize("labels", [[0, 1], np.arange(2), (0, 1)])
def test_labels_that_are_no_tensor(labels: object):
    f2c, images = small_f2c(SLOTS, IDENTITIES), torch.ones(2, DIM, dtype=torch.float64)
    words = rf"tensor of integers, got {type(labels).__name__}: make one with torch.as_tensor"
    with pytest.raises(LabelError, match=words):
        f2c(Dual(images, labels))
    with pytest.raises(LabelError, match=words):
        f2c.prefill(images, labels)


def test_a_batch_that_is_a_plain_tuple():
    with pytest.raises(ConfigError, match="got tuple without images, labels, plan"):
        small_f2c(SLOTS, IDENTITIES)((torch.ones(2, DIM), torch.arange(2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pool_of_half_precision(dtype: torch.dtype):
    f2c, images = small_f2c(SLOTS, IDENTITIES).to(dtype), torch.ones(2, DIM, dtype=dtype)
    words = f"the pool's rows must be float32 or float64, got {dtype}"
    with pytest.raises(ConfigError, match=words):
        f2c(Dual(images, torch.arange(2)))
    with pytest.raises(ConfigError, match=words):
        f2c.prefill(images, torch.arange(2))
    with pytest.raises(ConfigError, match=words):
        DynamicClassPool(6, DIM, margin=CosFace(), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_a_narrow_dtype(dtype: torch.dtype):
    one, other, batch = small_f2c(7, 100), small_f2c(7, 100), batch_of(0)
    narrow = Dual(batch.images, (batch.labels + 70).to(dtype))
    assert one(narrow).item() == other(Dual(batch.images, batch.labels + 70)).item()


@pytest.mark.parametrize("count", [6.0, True, "6", 0, -1])
def test_counts_that_are_none(count: object):
    for name in ("num_slots", "dim", "hard_negatives"):
        arguments = {"num_slots": 6, "dim": DIM, "hard_negatives": 3} | {name: count}
        with pytest.raises(ConfigError, match=rf"{name} must be a whole number .* got {count!r}"):
            DynamicClassPool(**arguments, margin=CosFace())
    with pytest.raises(ConfigError, match="num_identities must be a whole number"):
        small_f2c(SLOTS, count)

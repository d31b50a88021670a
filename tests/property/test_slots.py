"""Slots planned a batch at a time do what a walk over the labels does, step after step."""

import numpy as np
import pytest

from manyface.base.errors import ConfigError, LabelError
from manyface.base.random import numpy_generator
from manyface.heads.placement import NO_SLOT, Placement
from manyface.heads.pool_plan import PoolPlanner
from manyface.heads.slots import Slots
from manyface.testing.lru import SequentialLRU

CAPACITIES = [1, 2, 3, 5, 8, 20, 50, 200, 1000]
STEPS = 12_000


def random_labels(generator: np.random.Generator, *, num_slots: int, num_identities: int):
    """Few or many, spread or crowded; now and then more than the pool has slots."""
    most = 2 * num_slots + 4 if generator.random() < 0.3 else max(2, num_slots // 3)
    crowd = num_identities if generator.random() < 0.7 else max(1, num_identities // 3)
    return generator.integers(0, crowd, generator.integers(0, most))


def assert_placed_alike(slots: Slots, oracle: SequentialLRU, labels: np.ndarray) -> Placement:
    placed = slots.insert(labels)
    expected = [oracle.insert(label) for label in labels.tolist()]
    columns = (placed.slots, placed.rows, placed.again)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    last = {(slot, row): place for place, (slot, row, _) in enumerate(expected)}
    assert placed.kept.tolist() == sorted(last.values())
    newest = {slot: place for place, (slot, _, _) in enumerate(expected)}
    assert placed.newest.tolist() == sorted(newest.values())
    return placed


def assert_same_state(slots: Slots, oracle: SequentialLRU) -> None:
    identities = [name for name, _ in sorted(oracle.slot_of.items(), key=lambda item: item[1])]
    state = slots.state()
    assert state.order.tolist() == list(oracle.slot_of.values())
    assert state.identities.tolist() == identities
    assert state.next_rows.tolist() == [oracle.next_row[slot] for slot in range(len(identities))]
    everyone = np.arange(slots.num_identities)
    found = [oracle.slot_of.get(label, NO_SLOT) for label in everyone.tolist()]
    assert slots.find(everyone).tolist() == found


@pytest.mark.parametrize("num_slots", CAPACITIES)
def test_the_sequential_rule_equals_a_walk(num_slots: int):
    generator = numpy_generator(num_slots, "slots")
    num_identities = num_slots + int(generator.integers(0, 3 * num_slots + 3))
    slots = Slots(num_slots, num_identities=num_identities, rule="sequential")
    oracle = SequentialLRU(num_slots)
    for step in range(STEPS // len(CAPACITIES)):
        if step % 200 == 0:  # from empty again: that is where the free slots are
            slots = Slots(num_slots, num_identities=num_identities, rule="sequential")
            oracle = SequentialLRU(num_slots)
        draw = [
            random_labels(generator, num_slots=num_slots, num_identities=num_identities)
            for _ in range(3)
        ]
        with slots.rolled_back():
            trial = oracle.copy()
            assert_placed_alike(slots, trial, draw[0])
            with slots.rolled_back():
                slots.insert(draw[2])
            assert_placed_alike(slots, trial, draw[1])
        assert_placed_alike(slots, oracle, draw[2])
        if step % 10 == 0:
            assert_same_state(slots, oracle)


@pytest.mark.parametrize("num_slots", [3, 20, 200])
def test_hits_first_uses_the_batch_then_evicts_the_oldest_others(num_slots: int):
    generator = numpy_generator(num_slots, "hits first")
    num_identities = 3 * num_slots
    slots = Slots(num_slots, num_identities=num_identities)
    order: list[int] = []  # identities, least recently used first
    for _ in range(300):
        labels = generator.integers(0, num_identities, generator.integers(0, num_slots + 1))
        before = slots.find(np.arange(num_identities)).tolist()
        placed = slots.insert(labels)
        batch = list(dict.fromkeys(labels.tolist()[::-1]))[::-1]  # by last mention
        staying = [name for name in order if name not in batch]
        order = [*staying[max(0, len(staying) + len(batch) - num_slots) :], *batch]
        owners = slots.state().identities
        assert owners[slots.order()].tolist() == order
        for label, slot in zip(labels.tolist(), placed.slots.tolist(), strict=True):
            assert owners[slot] == label
            assert before[label] in (NO_SLOT, slot)


def test_a_restored_pool_goes_on_as_the_saved_one():
    generator = numpy_generator(0, "restore")
    one = Slots(50, num_identities=200)
    for _ in range(20):
        one.insert(generator.integers(0, 200, 16))
    other = Slots(50, num_identities=200)
    other.restore(one.state())
    for _ in range(40):
        labels = generator.integers(0, 200, 16)
        for first, second in zip(
            vars(one.insert(labels)).values(), vars(other.insert(labels)).values(), strict=True
        ):
            assert np.array_equal(first, second)


def test_a_trial_is_undone_however_full_the_log_of_uses_is():
    slots = Slots(4, num_identities=20)
    for label in range(30):
        slots.insert(np.array([label % 12]))
        before = slots.state()
        with slots.rolled_back():
            for other in range(label % 7):
                slots.insert(np.array([12 + other]))
        for one, same in zip(vars(before).values(), vars(slots.state()).values(), strict=True):
            assert np.array_equal(one, same)


def test_what_slots_refuse():
    with pytest.raises(ConfigError, match="1 <= slots <= identities"):
        Slots(11, num_identities=10)
    with pytest.raises(ConfigError, match="num_slots must be a whole number of at least 1, got 0"):
        Slots(0, num_identities=10)
    slots = Slots(3, num_identities=10)
    with pytest.raises(LabelError, match=r"label 10 at position 1 .* outside \[0, 10\): check"):
        slots.insert(np.array([3, 10]))
    with pytest.raises(LabelError, match="label -1 at position 0"):
        slots.find(np.array([-1]))
    for wrong in (np.array([1.0]), np.array([True]), np.array([[1]])):
        with pytest.raises(LabelError, match="labels must be integers, one per image, got"):
            slots.insert(wrong)
    with pytest.raises(ConfigError, match="4 identities, the pool 3 slots; take more slots"):
        slots.insert(np.array([1, 2, 3, 4]))
    state = Slots(5, num_identities=10)
    state.insert(np.arange(5) + 5)
    with pytest.raises(ConfigError, match="fills 5 slots, here are 3; take as many"):
        slots.restore(state.state())
    with pytest.raises(ConfigError, match=r"holds 5 to 9, expected \[0, 8\); take the num"):
        Slots(5, num_identities=8).restore(state.state())
    Slots(7, num_identities=11).restore(state.state())  # a larger pool may go on


@pytest.mark.parametrize("num_passes", [1, 2])
@pytest.mark.parametrize(
    "wrong", [([1, 9], [2, 10]), ([10, 1], [2, 3]), ([-1, 1], [2, 3]), ([4, 5, 4, 5], [6, 7, 8, 9])]
)
def test_a_refused_step_leaves_the_planner_where_it_was(num_passes: int, wrong):
    slots = Slots(3, num_identities=10)
    planner = PoolPlanner(slots, num_passes=num_passes)
    planner.plan(np.array([0, 1]), np.array([1, 2]))
    before, found = slots.state(), slots.find(np.arange(10))
    for x, y in (wrong, wrong[::-1])[:num_passes]:  # in one pass x only probes: any number may
        with pytest.raises((LabelError, ConfigError)):
            planner.plan(np.array(x), np.array(y))
        for one, other in zip(vars(before).values(), vars(slots.state()).values(), strict=True):
            assert np.array_equal(one, other)
        assert np.array_equal(slots.find(np.arange(10)), found)

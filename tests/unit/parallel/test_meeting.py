"""Ranks of a round meet each other, and nobody of the round before, in a store that is not new."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from manyface.parallel.meeting import round_store


def meet(store: HashStore, size: int, missing: tuple[int, ...] = ()) -> list[str]:
    """What each rank reads of a name that rank 0 writes, once they have met."""

    def join(rank: int) -> str:
        mine = round_store(store, rank=rank, size=size, seconds=5 if not missing else 0.3)
        if rank == 0:
            assert not mine.check(["name"])  # of an earlier round
            mine.set("name", "of rank 0")
        return str(mine.get("name").decode())

    there = [rank for rank in range(size) if rank not in missing]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(join, there))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_round_has_a_part_of_its_own(size: int) -> None:
    store = HashStore()
    for _ in range(4):
        assert meet(store, size) == ["of rank 0"] * size


@pytest.mark.parametrize("missing", [(0,), (1,), (2, 1)])
def test_a_round_that_was_not_complete_spoils_no_later_one(missing: tuple[int, ...]) -> None:
    store = HashStore()
    assert meet(store, 3) == ["of rank 0"] * 3
    with pytest.raises(RuntimeError, match="not all 3 ranks have come"):
        meet(store, 3, missing)
    assert meet(store, 3) == ["of rank 0"] * 3
    assert meet(store, 2) == ["of rank 0"] * 2

"""Collectives over real processes: values, padding, counted bytes, a rank that dies."""

import os
import signal
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from processes import on_ranks, outcomes
from torch.distributed import distributed_c10d

from manyface.base.errors import PeerError
from manyface.parallel import Ranks, Shard

SIZES = (1, 2, 3, 4)
CPU = torch.device("cpu")


def gather_and_scatter(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    ranks = Ranks()
    mine = torch.full((counts[ranks.rank], 2), float(ranks.rank), dtype=torch.float64)
    everything = ranks.gather(mine, counts, "rows").wait()
    weighted = everything * (ranks.rank + 1)
    return everything, ranks.scatter_sum(weighted, counts, "sums").wait(), dict(ranks.sent)


@pytest.mark.parametrize("counts", [[3], [2, 2], [0, 5, 1], [4, 0, 2, 3], [0, 0]])
def test_rows_of_unequal_ranks_are_gathered_and_summed_back(counts: list[int]) -> None:
    found = on_ranks(gather_and_scatter, len(counts), counts)
    expected = torch.cat([torch.full((n, 2), float(r)) for r, n in enumerate(counts)])
    factor = sum(range(1, len(counts) + 1))
    for rank, (everything, mine, sent) in enumerate(found):
        assert torch.equal(everything, expected.double())
        assert torch.equal(mine, torch.full((counts[rank], 2), float(rank * factor)).double())
        row, longest = 16, max(counts)
        alone = len(counts) == 1
        assert sent.get("rows", 0) == (0 if alone else longest * row)
        assert sent.get("sums", 0) == (0 if alone else len(counts) * longest * row)


def say_things() -> list[str]:
    ranks = Ranks()
    return ranks.say("" if ranks.rank == 1 else f"rank {ranks.rank}: é", "greeting")


@pytest.mark.parametrize("size", SIZES)
def test_texts_come_in_the_order_of_ranks(size: int) -> None:
    expected = ["" if rank == 1 else f"rank {rank}: é" for rank in range(size)]
    assert on_ranks(say_things, size) == [expected] * size


def die_or_sum() -> str:
    ranks = Ranks()
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.monotonic()
    try:
        ranks.sum_(torch.ones(3), "what is summed")
    except PeerError as error:
        return f"{time.monotonic() - started < 20} {error}"
    return "nothing was noticed"


def test_a_dead_rank_is_an_error_that_names_the_collective() -> None:
    found = outcomes(die_or_sum, 3)
    assert found[1] == (False, "died: SIGKILL")
    for rank in (0, 2):
        is_right, text = found[rank]
        assert is_right, text
        assert text.startswith("True "), text
        assert f"rank {rank} of 3 could not finish 'what is summed'" in text


def two_sums_at_once_that_rank_1_does_not_join() -> str:
    """As the buckets of DistributedDataParallel: which of them ran out of time is not the one that
    is waited for."""
    ranks = Ranks()
    group = dist.new_group(timeout=timedelta(seconds=4))
    if ranks.rank == 1:
        distributed_c10d._get_default_store().wait(["named"])
        return "hung"
    try:
        with ranks.working("sums that overlap"):
            works = []
            for _ in range(2):
                works.append(dist.all_reduce(torch.ones(3), group=group, async_op=True))
                time.sleep(2)
            works[1].wait()
    except PeerError as error:
        return str(error)
    finally:
        distributed_c10d._get_default_store().set("named", "")
    return "nothing was noticed"


def test_a_collective_that_another_one_took_down_is_named_as_well() -> None:
    text, _ = on_ranks(two_sums_at_once_that_rank_1_does_not_join, 2)
    assert "rank 0 of 2 could not finish 'sums that overlap'" in text
    assert "Application timeout" in text


@pytest.mark.parametrize("total", [0, 1, 3, 5, 1003])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shards_tile_the_table_as_insightface_does(total: int, size: int) -> None:
    shards = [Shard.of(total, rank=rank, size=size) for rank in range(size)]
    assert [row for s in shards for row in range(s.start, s.stop)] == list(range(total))
    for rank, shard in enumerate(shards):
        assert len(shard) == total // size + int(rank < total % size)
        assert shard.start == total // size * rank + min(rank, total % size)

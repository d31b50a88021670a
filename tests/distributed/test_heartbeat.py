"""A rank that hangs ends when others have failed, also where the store has gone with them."""

import os
import time
from pathlib import Path

from processes import outcomes, wait_for_file
from torch.distributed import TCPStore, distributed_c10d

from manyface.base.errors import PeerError
from manyface.parallel import Ranks
from manyface.parallel.heartbeat import Heartbeat


def hang_until_rank_0_is_gone(place: Path) -> str:
    """Rank 0 holds the store, as where no launcher does; it fails, says so and ends."""
    ranks = Ranks()
    store = store_of_rank_0(ranks.rank, place)
    distributed_c10d._get_default_store = lambda: store
    try:
        with Heartbeat(ranks, interval=0.5) as heartbeat:
            if ranks.rank == 0:
                heartbeat._store.wait(["1"])
                raise PeerError("sums", rank=0, size=2, error=RuntimeError("rank 1 is late"))
            time.sleep(20)
    except PeerError:
        os._exit(3)
    return "hangs"


def store_of_rank_0(rank: int, place: Path) -> TCPStore:
    if rank == 0:
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        place.with_suffix(".new").write_text(str(store.port))
        place.with_suffix(".new").rename(place)
        return store
    wait_for_file(place, 20)
    return TCPStore("localhost", int(place.read_text()), is_master=False, wait_for_workers=False)


def test_a_rank_that_hangs_ends_after_the_store_has_gone(tmp_path: Path) -> None:
    found = outcomes(hang_until_rank_0_is_gone, 2, tmp_path / "port")
    assert found == [
        (False, "died: exit code 3"),
        (False, f"died: exit code {PeerError.exit_code}"),
    ]

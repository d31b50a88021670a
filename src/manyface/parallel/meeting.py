"""A part of the launcher's store that only the processes of this round write in.

torchrun keeps one store for all rounds of a job: what processes wrote that are dead since is still
there, and torch would meet them at their old addresses. Nothing that a launcher says is new in each
round and the same on all machines, so the ranks find a name for the round themselves:

1. Every rank writes a random token under its number.
2. Rank 0 reads all tokens and offers them; one that is of a dead process will be overwritten, and
   then the offer changes.
3. A rank that finds its own token in the offer agrees to it.
4. When all have agreed to one offer, rank 0 says so. Its hash is the name.
"""

import hashlib
import json
import secrets
import time

from torch.distributed.distributed_c10d import PrefixStore, Store

_PAUSE = 0.02  # seconds between two looks


def round_store(store: Store, *, rank: int, size: int, seconds: float) -> Store:
    """The part of `store` for these `size` processes; all of them call this.

    Raises RuntimeError if they have not all come after `seconds`.
    """
    store, token = PrefixStore("manyface meeting", store), secrets.token_hex(8)
    store.set(f"token {rank}", token)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if rank == 0:
            _offer(store, size)
        agreed = _agree(store, rank, token)
        if agreed:
            return PrefixStore(agreed, store)
        time.sleep(_PAUSE)
    raise RuntimeError(f"not all {size} ranks have come after {seconds:.0f} s")


def _offer(store: Store, size: int) -> None:
    """Of rank 0: the tokens that are there now, and whether all have agreed to them."""
    keys = [f"token {rank}" for rank in range(size)]
    if not store.check(keys):
        return
    offer = json.dumps([store.get(key).decode() for key in keys])
    store.set("offer", offer)
    agreements = [f"agreed {rank}" for rank in range(size)]
    if store.check(agreements) and all(store.get(key).decode() == offer for key in agreements):
        store.set("met", offer)


def _agree(store: Store, rank: int, token: str) -> str:
    """The name of the round once all have agreed, else ""."""
    if not store.check(["offer"]):
        return ""
    offer = store.get("offer").decode()
    if json.loads(offer)[rank : rank + 1] != [token]:
        return ""
    store.set(f"agreed {rank}", offer)
    if store.check(["met"]) and store.get("met").decode() == offer:
        return hashlib.blake2b(offer.encode(), digest_size=8).hexdigest()
    return ""

"""What fails on one rank fails on all, before anybody waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from manyface.base.errors import ManyfaceError, PeerFailedError
from manyface.parallel.ranks import Ranks


@contextmanager
def all_or_none(ranks: Ranks, name: str) -> Iterator[None]:
    """Do what is inside on every rank, or fail on all.

    Raises:
        ManyfaceError: this rank's own.
        PeerFailedError: of another rank, with its words.
    """
    failure: ManyfaceError | None = None
    try:
        yield
    except ManyfaceError as error:
        if ranks.is_alone:
            raise
        failure = error
    said = ranks.say("" if failure is None else str(failure) or type(failure).__name__, name)
    if failure is not None:
        raise failure
    for rank, text in enumerate(said):
        if text:
            raise PeerFailedError(rank, text)

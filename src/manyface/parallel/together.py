"""What fails on one rank fails on all, before anybody waits for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from manyface.base.errors import ManyfaceError, PeerError, PeerFailedError
from manyface.parallel.ranks import Ranks


@contextmanager
def all_or_none(ranks: Ranks, name: str) -> Iterator[None]:
    """Do what is inside on every rank, or fail on all. No collective may be made inside.

    Raises:
        Exception: this rank's own.
        PeerFailedError: of another rank, with its words.
    """
    failure: Exception | None = None
    try:
        yield
    except PeerError:
        raise  # the others cannot be told
    except Exception as error:
        if ranks.is_alone:
            raise
        failure = error
    said = _told(failure, ranks, name)
    if failure is not None:
        raise failure
    for rank, text in enumerate(said):
        if text:
            raise PeerFailedError(rank, text)


def _told(failure: Exception | None, ranks: Ranks, name: str) -> list[str]:
    """What every rank says of itself; this one's failure goes before that of telling it."""
    try:
        return ranks.say("" if failure is None else _in_words(failure), name)
    except PeerError as error:
        if failure is None:
            raise
        raise failure from error


def _in_words(failure: Exception) -> str:
    if isinstance(failure, ManyfaceError):
        return str(failure) or type(failure).__name__
    return f"{type(failure).__name__}: {failure}"

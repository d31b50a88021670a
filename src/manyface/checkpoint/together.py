"""What all ranks do together succeeds on all or fails on all, with the same words."""

import errno
import json
from collections.abc import Callable
from typing import Any, TypeVar

from manyface.base.errors import CheckpointError, DamagedCheckpointError, ManyfaceError
from manyface.parallel import Ranks

T = TypeVar("T")
_KINDS = {kind.__name__: kind for kind in (CheckpointError, DamagedCheckpointError)}


class SystemCallError(CheckpointError):
    """The system refused on some rank; the text names rank, path and errno."""


def together(
    ranks: Ranks,
    name: str,
    action: Callable[[], T],
    *,
    tell: Callable[[T], Any] = lambda result: None,
) -> tuple[T, list[Any]]:
    """This rank's result of `action`, and what `tell` makes of every rank's (JSON).

    If it failed on any rank, all raise the error of the first such rank: CheckpointError,
    DamagedCheckpointError or SystemCallError. Alone, other exceptions stay what they are.
    `name` is that of the collective, which carries a short text.
    """
    failure: Exception | None = None
    verdict: dict[str, Any] = {}
    try:
        result = action()
        verdict["said"] = tell(result)
    except Exception as error:
        if ranks.is_alone and not isinstance(error, OSError):
            raise
        failure = error
        verdict = {"kind": _kind(error), "text": _where(ranks) + describe(error)}
    verdicts = [json.loads(text) for text in ranks.say(json.dumps(verdict), name)]
    for found in verdicts:
        if "kind" in found:
            raise _KINDS.get(found["kind"], SystemCallError)(found["text"]) from failure
    return result, [found["said"] for found in verdicts]


def by_first(ranks: Ranks, name: str, action: Callable[[], Any]) -> Any:
    """What `action` (giving JSON) gives on rank 0, which alone does it; errors as in `together`."""
    _, said = together(ranks, name, lambda: action() if ranks.rank == 0 else None, tell=itself)
    return said[0]


def itself(value: Any) -> Any:
    """What it is given."""
    return value


def describe(error: Exception) -> str:
    """One line: an error of the system with path and errno."""
    if isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0, "?")
        # A rename has two names.
        path = error.filename2 or error.filename
        place = "" if path is None else f"{path}: "
        return f"{place}{error.strerror or error} ({code}, errno {error.errno})"
    return str(error) if isinstance(error, ManyfaceError) else f"{type(error).__name__}: {error}"


def _kind(error: Exception) -> str:
    if isinstance(error, OSError):
        return SystemCallError.__name__
    return type(error).__name__ if type(error) in _KINDS.values() else CheckpointError.__name__


def _where(ranks: Ranks) -> str:
    return "" if ranks.is_alone else f"rank {ranks.rank} of {ranks.size}: "

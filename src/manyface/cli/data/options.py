"""Options of `manyface data` that are one of a few words."""

from collections.abc import Sequence
from typing import TypeVar

from manyface.base.errors import ConfigError

WordT = TypeVar("WordT", bound=str)


def choice(option: str, given: str, words: Sequence[WordT]) -> WordT:
    """The one of `words` that was `given`."""
    for word in words:
        if word == given:
            return word
    raise ConfigError(f"{option} is one of {', '.join(words)}, got {given!r}")

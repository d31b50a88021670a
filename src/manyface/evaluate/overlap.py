"""People that are in both training and test data, found by name.

Verification of people that the network was trained on measures memory, not recognition. Names are
compared without regard to case, Unicode form, and `_` or space. Equal names can be different people
(folders named by numbers), and one person can have two names: this finds what names can show.
"""

import unicodedata
from collections.abc import Iterable


def identity_overlap(train_names: Iterable[str], test_names: Iterable[str]) -> list[str]:
    """Names of `test_names` that are in `train_names` too, sorted.

    Memory is that of the test names: the training names, which may be millions, are walked once.
    """
    wanted = {plain_name(name): name for name in test_names}
    return sorted({wanted[key] for key in map(plain_name, train_names) if key in wanted})


def overlap_warning(overlap: list[str], *, num_test: int, name: str) -> str | None:
    """One line for the log and the report, or None where nobody is in both."""
    if not overlap:
        return None
    shown = ", ".join(overlap[:3]) + (", ..." if len(overlap) > 3 else "")
    return (
        f"{len(overlap)} of the {num_test} people of {name} are in the training data too "
        f"({shown}): its scores do not measure recognition of "
        "unseen people; leave them out of the training"
    )


def plain_name(name: str) -> str:
    """A name without what people spell in several ways."""
    return unicodedata.normalize("NFKC", name).casefold().replace("_", " ").strip()

"""Looking through labels with a net: images under the wrong person, people under two labels."""

from manyface.curate.centers import AlikeCenters, find_alike_centers
from manyface.curate.conflicts import (
    Conflicts,
    SplitIdentities,
    Strangers,
    Thresholds,
    WrongLabels,
    find_conflicts,
    measure_thresholds,
)
from manyface.curate.embedded import EmbeddedSet, embed_set
from manyface.curate.shared import SharedIdentities, find_shared

__all__ = [
    "AlikeCenters",
    "Conflicts",
    "EmbeddedSet",
    "SharedIdentities",
    "SplitIdentities",
    "Strangers",
    "Thresholds",
    "WrongLabels",
    "embed_set",
    "find_alike_centers",
    "find_conflicts",
    "find_shared",
    "measure_thresholds",
]

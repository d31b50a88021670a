"""How well groups fit the people: precision, recall and F of BCubed and of pairs.

- BCubed (Bagga and Baldwin, "Algorithms for scoring coreference chains", 1998): of each image the
  share of its group that is of its person, and the share of its person that is in its group; means
  over images. Each image counts alike.
- Pairs: of two images in one group, how often they are of one person, and of two of one person,
  how often they are in one group. A person with 100 images has 4,950 pairs, so large ones decide.

Neither says how a recogniser does at another limit: do not compare methods by groups at limits that
were chosen on the same images.
"""

from dataclasses import dataclass

import numpy as np

from manyface.base.errors import DataError
from manyface.gallery.people import Int64Array


@dataclass(frozen=True)
class Agreement:
    """Shares, 0 to 1.

    Attributes:
        precision: 1 where no group mixes people.
        recall: 1 where no person is in two groups.
    """

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """The harmonic mean."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def bcubed(groups: Int64Array, people: Int64Array) -> Agreement:
    """Agreement image by image of `groups` and `people`, int64 [N] each."""
    both, of_group, of_person = _counts(groups, people)
    return Agreement(
        precision=float((both / of_group).mean()), recall=float((both / of_person).mean())
    )


def pairwise(groups: Int64Array, people: Int64Array) -> Agreement:
    """Agreement over pairs of images; 1 where there is no pair to judge."""
    both, of_group, of_person = _counts(groups, people)
    together, in_groups, in_people = (
        float((count - 1).sum()) for count in (both, of_group, of_person)
    )
    return Agreement(
        precision=together / in_groups if in_groups else 1.0,
        recall=together / in_people if in_people else 1.0,
    )


def _counts(groups: Int64Array, people: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Of each image: images of its group and person, of its group, of its person; int64 [N]."""
    if len(groups) != len(people) or not len(groups):
        raise DataError(f"expected groups and people of one length, got {len(groups)}, "
                        f"{len(people)}")  # fmt: skip
    keys = np.stack([groups, people], axis=1)
    _, place, sizes = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    found = [sizes[place.reshape(-1)]]
    for labels in (groups, people):
        _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        found.append(sizes[place.reshape(-1)])
    return found[0], found[1], found[2]

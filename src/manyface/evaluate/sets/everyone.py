"""A set in which every image is compared with every other."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manyface.data.source import ImageSource
from manyface.evaluate.all_pairs import AllPairs, all_pairs_result, count_pairs
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.result import Mistakes
from manyface.evaluate.sets.base import NUM_MISTAKES, JudgedSet, Judgement, Part, Show
from manyface.evaluate.tails import check_kept, largest_far

USUAL_FARS = (1e-3, 1e-4, 1e-5, 1e-6)
# Impostors that are kept for them: intervals walk through all of these for each resample.
_USUAL_KEPT = 1 << 23


class JudgedEveryone(JudgedSet):
    """All against all.

    Args:
        fars: None: the usual ones that do not need millions of impostors to be kept.
        groups: [N] the subgroup of each image of `source`, or None.

    Raises:
        DataError: more scores would have to be kept than there is room for.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        name: str,
        fars: Sequence[float] | None = None,
        groups: npt.NDArray[np.str_] | None = None,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self._everyone = Part.whole(source)
        self._groups, self._device = groups, device
        num_genuine, num_impostors = count_pairs(np.bincount(self._everyone.labels))
        largest = largest_far(num_impostors, _USUAL_KEPT)
        self._fars = fars or [far for far in USUAL_FARS if far <= largest]
        self._notes = [
            f"tar@far={far:g} was left out: it needs {far * num_impostors:.2g} impostors to be "
            f"kept; --fars {far:g} asks for it"
            for far in USUAL_FARS
            if far not in self._fars and fars is None
        ]
        check_kept(self._fars, num_genuine, num_impostors, name)

    @property
    def parts(self) -> Sequence[Part]:
        return [self._everyone]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        seen: list[AllPairs] = []
        result = all_pairs_result(
            features[0],
            self._everyone.labels,
            groups=self._groups,
            fars=self._fars,
            name=self.name,
            device=self._device,
            look=seen.append,
            progress=show("comparing all with all"),
        )
        result.notes.extend(self._notes)
        return Judgement([result], self._closest(seen[0]))

    def _closest(self, found: AllPairs) -> Mistakes:
        """Pictures of the most similar pairs of two people: at the lowest FARs they are what
        decides, and often one person under two labels."""
        pairs, source = found.closest[:NUM_MISTAKES], self._everyone.source
        return Mistakes(
            left=source.load(pairs[:, 0]).numpy(),
            right=source.load(pairs[:, 1]).numpy(),
            similarity=found.tail.impostors[: len(pairs)].astype(np.float32),
            same=np.zeros(len(pairs), bool),
        )

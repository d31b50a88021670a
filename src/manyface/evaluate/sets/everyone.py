"""A set in which every image is compared with every other."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manyface.data.source import ImageSource
from manyface.evaluate.all_pairs import all_pairs_result
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.sets.base import JudgedSet, Judgement, Part, Show


class JudgedEveryone(JudgedSet):
    """All against all.

    Args:
        groups: [N] the subgroup of each image of `source`, or None.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        name: str,
        fars: Sequence[float],
        groups: npt.NDArray[np.str_] | None = None,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self._everyone = Part.whole(source)
        self._fars, self._groups, self._device = fars, groups, device

    @property
    def parts(self) -> Sequence[Part]:
        return [self._everyone]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        result = all_pairs_result(
            features[0],
            self._everyone.labels,
            groups=self._groups,
            fars=self._fars,
            name=self.name,
            device=self._device,
            progress=show("comparing all with all"),
        )
        return Judgement([result])

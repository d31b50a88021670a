"""How hard the synthetic faces are: one record, with named versions whose pixels never change.

The numbers come from training runs, listed in `docs/synthetic.md`: unseen people are told apart
by a small net within about 100,000 images, while whitened pixels and an untrained net stay below
0.75. Same and different pairs draw their conditions alike.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from manyface.base.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """Multipliers of the spread of everything that is drawn; 0 switches a group off.

    Args:
        name: what reports call it.
        people: how far the faces of different people differ; the only one that makes it easier.
        pose: turn and nod of the head.
        light: direction, strength and colour of the light, exposure, contrast.
        expression: smile, open mouth, brows, lids, gaze.
        disguise: chance that hair, beard, make-up and glasses differ from the person's usual ones.
        occlusion: chance of a hand, a scarf, a cap or sunglasses.
        camera: misalignment of the crop, blur, sensor noise.
    """

    name: str = "custom"
    people: float = 1.0
    pose: float = 1.0
    light: float = 1.0
    expression: float = 1.0
    disguise: float = 1.0
    occlusion: float = 1.0
    camera: float = 1.0

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if field != "name" and not 0.0 <= value <= 2.0:
                raise DataError(f"difficulty: {field} must be within [0, 2], got {value}")


_FACES_1 = Difficulty(name="faces-1", people=1.2, pose=0.9, light=0.9)
# For minutes of training: fewer disguises and less pose, but crops and light as misleading to
# whitened pixels.
_DEMO_1 = Difficulty(
    name="demo-1",
    people=1.2,
    pose=0.5,
    light=1.2,
    expression=0.4,
    disguise=0.1,
    occlusion=0.05,
    camera=1.4,
)
DIFFICULTIES: Final = MappingProxyType({each.name: each for each in (_FACES_1, _DEMO_1)})


def find_difficulty(name: str) -> Difficulty:
    """The difficulty of that name; an unknown name is an error that lists the known ones."""
    if name not in DIFFICULTIES:
        known = ", ".join(DIFFICULTIES)
        raise DataError(f"difficulty: expected one of {known}; got {name!r}")
    return DIFFICULTIES[name]

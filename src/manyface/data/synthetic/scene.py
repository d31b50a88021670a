"""What the layers share about a batch: who, under which conditions, seen how, in which colours."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import clamp, color, mix
from manyface.data.synthetic.difficulty import Difficulty
from manyface.data.synthetic.draws import Record, from_table
from manyface.data.synthetic.geometry import Frame, Light, Point, View, aligned_view
from manyface.data.synthetic.people import People
from manyface.data.synthetic.pictures import Pictures

# Melanin from light to dark, then hair from black over brown, red and blond to grey.
_SKIN = ((0.96, 0.80, 0.71), (0.85, 0.65, 0.51), (0.63, 0.43, 0.31), (0.36, 0.24, 0.18))
_HAIR = (
    (0.07, 0.06, 0.06),
    (0.17, 0.11, 0.08),
    (0.33, 0.21, 0.13),
    (0.52, 0.30, 0.15),
    (0.78, 0.62, 0.38),
    (0.62, 0.60, 0.58),
)
_IRIS = ((0.20, 0.11, 0.06), (0.35, 0.22, 0.11), (0.33, 0.38, 0.22), (0.30, 0.47, 0.60))
_OCCLUSION_SHARE = 0.15
_COLOR_DIMS = 4


@dataclass(frozen=True)
class Habits:
    """Hair, beard and glasses as this picture has them: the usual ones or others."""

    hair_tone: Tensor
    hair_volume: Tensor
    hair_length: Tensor
    fringe: Tensor  # how far hair hangs over the forehead, 0 to 1
    beard: Tensor  # 0 shaved, 1 full
    glasses: Tensor  # 1 worn, 0 not


@dataclass(frozen=True)
class Scene:
    """One batch, ready to be painted; everything is `[B, 1, 1]`."""

    people: People
    pictures: Pictures
    habits: Habits
    view: View
    light: Light
    diffuse: Tensor  # the share of the light that comes from its direction
    mouth_drop: Tensor  # how far the chin hangs because the mouth is open
    smile: Tensor
    occluded: Tensor  # 1 where something covers a part of the face
    skin: Tensor  # colours are [3, B, 1, 1]
    hair: Tensor
    iris: Tensor

    def frame(
        self, point: Point, *, fall_x: Tensor | float = 0.0, fall_y: Tensor | float = 0.0
    ) -> Frame:
        return self.view.frame(point, fall_x=fall_x, fall_y=fall_y)

    def take(self, chosen: Tensor) -> "Scene":
        """The scene of some images of the batch."""
        part: Scene = _take(self, chosen)
        return part


def build_scene(people: People, pictures: Pictures, *, difficulty: Difficulty) -> Scene:
    """Combine a person with conditions: expression moves landmarks, then the crop is aligned."""
    habits = _habits(people, pictures, difficulty.disguise)
    smile = clamp(pictures.smile, -0.4, 1.3)
    open_mouth = clamp(pictures.open_mouth, 0.0, 0.3)
    view = aligned_view(
        _landmarks(people, smile, open_mouth),
        turn=pictures.turn,
        nod=pictures.nod,
        tilt=pictures.tilt,
        zoom=pictures.zoom,
        shift_x=pictures.shift_x,
        shift_y=pictures.shift_y,
    )
    norm = torch.sqrt(pictures.light_x**2 + pictures.light_y**2 + 1.0)
    light = Light(pictures.light_x / norm, pictures.light_y / norm, 1.0 / norm)
    skin = palette(_SKIN, people.skin_tone)
    return Scene(
        people=people,
        pictures=pictures,
        habits=habits,
        view=view,
        light=light,
        diffuse=1.0 - clamp(pictures.ambient, 0.15, 0.9),
        mouth_drop=open_mouth,
        smile=smile,
        occluded=(pictures.occlusion < _OCCLUSION_SHARE * difficulty.occlusion).float(),
        skin=skin + people.skin_red * color(0.04, -0.02, -0.02),
        hair=palette(_HAIR, habits.hair_tone),
        iris=palette(_IRIS, people.iris_hue),
    )


def palette(stops: tuple[tuple[float, float, float], ...], position: Tensor) -> Tensor:
    """The colour at `position` in [0, 1] between evenly spaced stops."""
    table = torch.tensor(stops).T  # [3, stops]
    place = position * (len(stops) - 1)
    lower = place.long().clamp(max=len(stops) - 2)
    return mix(table[:, lower], table[:, lower + 1], place - lower)  # [3, B, 1, 1]


def _landmarks(people: People, smile: Tensor, open_mouth: Tensor) -> tuple[Point, ...]:
    corner = people.mouth_width * (1.0 + smile * 0.14)
    corner_y = people.mouth_y - smile * 0.05 + open_mouth * 0.3
    return (
        (-people.eye_x, 0.0, 0.0),
        (people.eye_x, 0.0, 0.0),
        (people.nose_x, people.nose_y, people.nose_depth),
        (people.mouth_x - corner, corner_y, 0.08),
        (people.mouth_x + corner, corner_y, 0.08),
    )


def _habits(people: People, pictures: Pictures, disguise: float) -> Habits:
    def either(chance: Tensor, share: float, usual: Tensor, other: Tensor) -> Tensor:
        return torch.where(chance < (share * disguise), other, usual)

    bearded = torch.where(
        people.bearded > 0.55,
        either(pictures.usual_beard, 0.4, people.bearded, pictures.beard),
        0.0,
    )
    glasses = either(pictures.usual_glasses, 0.25, people.wears_glasses, pictures.glasses)
    return Habits(
        hair_tone=either(pictures.usual_color, 0.3, people.hair_tone, pictures.hair_tone),
        hair_volume=either(pictures.usual_hair, 0.5, people.hair_volume, pictures.hair_volume),
        hair_length=either(pictures.usual_hair, 0.5, people.hair_length, pictures.hair_length),
        fringe=either(pictures.usual_hair, 0.5, people.fringe, pictures.fringe),
        beard=bearded,
        glasses=(glasses > 0.78).float(),
    )


def _take(record: Any, chosen: Tensor) -> Any:
    """Index every array of nested frozen records and tuples."""
    if isinstance(record, Tensor):
        return record[:, chosen] if record.ndim == _COLOR_DIMS else record[chosen]
    if isinstance(record, Record):
        return from_table(type(record), record.table[:, chosen])
    if isinstance(record, tuple):
        return tuple(_take(part, chosen) for part in record)
    parts = {name: _take(part, chosen) for name, part in vars(record).items()}
    return type(record)(**parts)

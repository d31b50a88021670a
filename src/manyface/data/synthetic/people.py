"""What makes a person: shapes, distances and stable marks, drawn once per identity.

Lengths are face units (1 = distance between the eyes of the template). Means are those of an
average face; spreads are wider than nature's (about twice), since a crop of 64 pixels shows a face
unit as 20 pixels only. Colours are drawn too, but as weakly informative as in photographs: light
and exposure move them as far as people differ.
"""

# ruff: noqa: RUF009  (bell and uniform return dataclasses.field)

from dataclasses import dataclass

from torch import Tensor

from manyface.data.synthetic.draws import Record, bell, uniform

_SHAPE = "people"


@dataclass(frozen=True)
class People(Record):
    """A batch of people; every field is float32 `[B, 1, 1]`, a row of the table `[F, B, 1, 1]`."""

    # The head: half widths at the cheekbones and the jaw, heights of chin and top of the skull.
    cheek_width: Tensor = bell(1.1, 0.08, _SHAPE)
    jaw_width: Tensor = bell(0.82, 0.095, _SHAPE)
    chin_y: Tensor = bell(1.83, 0.11, _SHAPE)
    jaw_square: Tensor = bell(0.5, 0.35, _SHAPE)
    skull_top: Tensor = bell(-1.42, 0.12, _SHAPE)
    hairline_y: Tensor = bell(-0.88, 0.11, _SHAPE)
    hairline_bend: Tensor = bell(0.45, 0.15, _SHAPE)
    widows_peak: Tensor = bell(0.0, 0.09, _SHAPE)
    ear_size: Tensor = bell(0.3, 0.045, _SHAPE)
    ear_out: Tensor = bell(0.0, 0.05, _SHAPE)
    ear_y: Tensor = bell(0.25, 0.08, _SHAPE)
    # Eyes and brows.
    eye_x: Tensor = bell(0.5, 0.04, _SHAPE)
    eye_width: Tensor = bell(0.265, 0.034, _SHAPE)
    eye_upper: Tensor = bell(0.12, 0.026, _SHAPE)
    eye_lower: Tensor = bell(0.06, 0.018, _SHAPE)
    eye_tilt: Tensor = bell(0.05, 0.1, _SHAPE)
    eye_crease: Tensor = bell(0.075, 0.03, _SHAPE)
    eye_depth: Tensor = bell(0.5, 0.22, _SHAPE)
    eye_bags: Tensor = bell(0.12, 0.09, _SHAPE)
    iris_radius: Tensor = bell(0.105, 0.009, _SHAPE)
    iris_hue: Tensor = uniform()
    brow_y: Tensor = bell(-0.31, 0.06, _SHAPE)
    brow_x: Tensor = bell(0.52, 0.04, _SHAPE)
    brow_length: Tensor = bell(0.34, 0.045, _SHAPE)
    brow_thick: Tensor = bell(0.055, 0.02, _SHAPE)
    brow_arch: Tensor = bell(0.08, 0.05, _SHAPE)
    brow_tilt: Tensor = bell(0.0, 0.13, _SHAPE)
    brow_density: Tensor = bell(0.75, 0.15, _SHAPE)
    # Nose: place and depth of the tip, widths, how much its parts stand out.
    nose_y: Tensor = bell(0.6, 0.085, _SHAPE)
    nose_x: Tensor = bell(0.0, 0.025, _SHAPE)
    nose_depth: Tensor = bell(0.5, 0.09, _SHAPE)
    nose_width: Tensor = bell(0.25, 0.045, _SHAPE)
    nose_tip: Tensor = bell(0.15, 0.028, _SHAPE)
    nose_tip_height: Tensor = bell(1.0, 0.25, _SHAPE)
    bridge_width: Tensor = bell(0.15, 0.03, _SHAPE)
    bridge_height: Tensor = bell(0.75, 0.25, _SHAPE)
    bridge_hump: Tensor = bell(0.0, 0.35, _SHAPE)
    nostril: Tensor = bell(0.055, 0.014, _SHAPE)
    # Mouth, chin, cheeks.
    mouth_y: Tensor = bell(1.16, 0.08, _SHAPE)
    mouth_x: Tensor = bell(0.0, 0.025, _SHAPE)
    mouth_width: Tensor = bell(0.41, 0.06, _SHAPE)
    lip_upper: Tensor = bell(0.075, 0.027, _SHAPE)
    lip_lower: Tensor = bell(0.11, 0.032, _SHAPE)
    lip_bow: Tensor = bell(0.35, 0.25, _SHAPE)
    lip_corner: Tensor = bell(0.0, 0.03, _SHAPE)
    chin_height: Tensor = bell(0.6, 0.3, _SHAPE)
    chin_cleft: Tensor = bell(-0.1, 0.2, _SHAPE)
    cheek_height: Tensor = bell(0.4, 0.25, _SHAPE)
    cheek_y: Tensor = bell(0.6, 0.1, _SHAPE)
    fold: Tensor = bell(0.12, 0.1, _SHAPE)
    # Marks: each mole has a place and may be too small to see.
    mole_1_x: Tensor = uniform(-0.85, 0.85)
    mole_1_y: Tensor = uniform(-0.7, 1.6)
    mole_1_size: Tensor = uniform(-0.05, 0.075)
    mole_2_x: Tensor = uniform(-0.85, 0.85)
    mole_2_y: Tensor = uniform(-0.7, 1.6)
    mole_2_size: Tensor = uniform(-0.08, 0.06)
    # Colours and habits, which pictures change.
    skin_tone: Tensor = uniform()
    skin_red: Tensor = bell(0.0, 0.5, _SHAPE)
    hair_tone: Tensor = uniform()
    hair_volume: Tensor = bell(0.16, 0.08, _SHAPE)
    hair_length: Tensor = uniform()
    fringe: Tensor = uniform()
    bearded: Tensor = uniform()
    wears_glasses: Tensor = uniform()

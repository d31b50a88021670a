"""What a person keeps changing: pose, light, expression, outfit, camera; drawn once per picture.

No field depends on who is shown, so conditions are distributed alike in pairs of the same and of
different people. `usual` fields decide by chance whether the person's own hair, beard and glasses
are kept; otherwise the picture's own are taken.
"""

# ruff: noqa: RUF009  (bell and uniform return dataclasses.field)

from dataclasses import dataclass

from torch import Tensor

from manyface.data.synthetic.draws import Record, bell, uniform


@dataclass(frozen=True)
class Pictures(Record):
    """The conditions of a batch of pictures; every field is `[B, 1, 1]`, a row of the table."""

    # Pose: tan(angle / 2); a spread of 0.1 is 11 degrees.
    turn: Tensor = bell(0.0, 0.1, "pose")
    nod: Tensor = bell(0.0, 0.055, "pose")
    # Light: direction towards it (before normalising), ambient share, colour, exposure.
    light_x: Tensor = bell(0.0, 0.7, "light")
    light_y: Tensor = bell(-0.45, 0.45, "light")
    ambient: Tensor = bell(0.42, 0.1, "light")
    exposure: Tensor = bell(1.0, 0.14, "light")
    warmth: Tensor = bell(0.0, 0.09, "light")
    green: Tensor = bell(0.0, 0.04, "light")
    contrast: Tensor = bell(1.0, 0.12, "light")
    # Expression.
    smile: Tensor = bell(0.25, 0.4, "expression")
    open_mouth: Tensor = bell(-0.02, 0.09, "expression")
    brow_raise: Tensor = bell(0.0, 0.035, "expression")
    frown: Tensor = bell(0.0, 0.07, "expression")
    lids: Tensor = bell(0.95, 0.16, "expression")
    gaze_x: Tensor = bell(0.0, 0.04, "expression")
    gaze_y: Tensor = bell(0.0, 0.015, "expression")
    # Outfit: chances against thresholds, and what comes instead of the usual.
    usual_hair: Tensor = uniform()
    usual_color: Tensor = uniform()
    usual_beard: Tensor = uniform()
    usual_glasses: Tensor = uniform()
    hair_tone: Tensor = uniform()
    hair_volume: Tensor = uniform(0.05, 0.32)
    hair_length: Tensor = uniform()
    fringe: Tensor = uniform()
    parting: Tensor = uniform(-0.35, 0.35)
    beard: Tensor = uniform()
    glasses: Tensor = uniform()
    glasses_shape: Tensor = uniform()
    glasses_tone: Tensor = uniform()
    makeup: Tensor = uniform()
    makeup_tone: Tensor = uniform()
    # Occlusion: which one, where, which colour.
    occlusion: Tensor = uniform()
    occlusion_kind: Tensor = uniform()
    occlusion_x: Tensor = uniform(-1.0, 1.0)
    occlusion_y: Tensor = uniform()
    occlusion_slope: Tensor = uniform(-0.6, 0.6)
    occlusion_red: Tensor = uniform(0.05, 0.9)
    occlusion_green: Tensor = uniform(0.05, 0.9)
    occlusion_blue: Tensor = uniform(0.05, 0.9)
    # Background and clothes.
    back_level: Tensor = uniform(0.15, 0.9)
    back_red: Tensor = uniform(-0.14, 0.14)
    back_green: Tensor = uniform(-0.14, 0.14)
    back_blue: Tensor = uniform(-0.14, 0.14)
    back_slope_x: Tensor = uniform(-0.2, 0.2)
    back_slope_y: Tensor = uniform(-0.2, 0.2)
    back_texture: Tensor = uniform(0.0, 0.35)
    cloth_red: Tensor = uniform(0.05, 0.9)
    cloth_green: Tensor = uniform(0.05, 0.9)
    cloth_blue: Tensor = uniform(0.05, 0.9)
    # Camera: misalignment of the crop, softness, sensor noise, places in the noise banks.
    tilt: Tensor = bell(0.0, 0.018, "camera")
    zoom: Tensor = bell(1.0, 0.03, "camera")
    shift_x: Tensor = bell(0.0, 0.035, "camera")
    shift_y: Tensor = bell(0.0, 0.035, "camera")
    blur: Tensor = bell(0.35, 0.25, "camera")
    noise: Tensor = bell(0.02, 0.009, "camera")
    noise_x: Tensor = uniform()
    noise_y: Tensor = uniform()
    texture_x: Tensor = uniform()
    texture_y: Tensor = uniform()

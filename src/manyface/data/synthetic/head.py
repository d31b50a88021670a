"""The layers behind the features: background, neck, hair, ears, the outline of the face."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, Window, at_least, at_most, clamp, cover, mix
from manyface.data.synthetic.scene import Scene
from manyface.data.synthetic.shading import face_light

_SKULL_DEPTH = -0.7
_JAW_DEPTH = -0.35
_EAR_DEPTH = -0.95


@dataclass(frozen=True)
class Hair:
    """Where hair grows and how it is lit, kept from the back layer for the front one."""

    inside: Tensor  # [B, S, S], positive within the hair's outline
    shade: Tensor  # [B, S, S]


def paint_background(canvas: Canvas, scene: Scene, texture: Tensor) -> None:
    """A sloping colour with smooth blotches `texture` `[B, S, S]`; fills everything."""
    area, pictures = canvas.full(), scene.pictures
    level = pictures.back_slope_x * area.x + pictures.back_slope_y * area.y + pictures.back_level
    level = level + texture * pictures.back_texture
    tint = torch.stack((pictures.back_red, pictures.back_green, pictures.back_blue))
    torch.add(level, tint, out=canvas.albedo)
    canvas.shade.fill_(1.0)


def paint_neck(canvas: Canvas, scene: Scene) -> None:
    """The neck in the shadow of the chin, and clothes below it."""
    area = canvas.window(-1.6, 1.6, 0.9, 1.9)
    people, pictures = scene.people, scene.pictures
    frame = scene.frame((0.0, 1.6, -0.75))
    u, v = frame.local(area)
    width = people.jaw_width * 0.92
    neck = cover(torch.minimum(width - torch.abs(u), v + 0.9), area.sharpness)
    canvas.paint(area, neck, scene.skin * 0.62)
    collar = v - 0.2 + torch.abs(u) * -0.25
    cloth = torch.stack((pictures.cloth_red, pictures.cloth_green, pictures.cloth_blue))
    canvas.paint(area, cover(collar, area.sharpness), cloth)


def paint_back_hair(canvas: Canvas, scene: Scene, strands: Tensor) -> Hair:
    """The hair behind face and ears; `strands` `[B, S, S]` is its texture."""
    area, people, habits = canvas.full(), scene.people, scene.habits
    frame = scene.frame((0.0, 0.1, _SKULL_DEPTH)).scaled(
        (people.cheek_width * 0.98 + habits.hair_volume) * _widening(scene),
        (0.1 - people.skull_top) + habits.hair_volume,
    )
    u, v = frame.local(area)
    # Long hair hangs: below the temples its outline closes slowly or not at all.
    closing = at_least((0.62 - habits.hair_length) * 4.0, 0.0)
    high = at_most(v, 0.0)
    low = v.clamp_(min=0.0).mul_(closing)
    inside = (1.0 - u.mul_(u)).sub_(low.mul_(low)).sub_(high.mul_(high)).mul_(0.5)
    light, diffuse = scene.light, scene.diffuse
    strength = diffuse * 0.5
    shade = frame.blend(light.x * strength, light.y * strength).on(area)
    shade += (strands * (diffuse * 0.3)).add_(0.85)
    hair = Hair(inside, shade)
    _paint_hair(canvas, scene, hair, area, cover(inside.clone(), area.sharpness))
    return hair


def _paint_hair(canvas: Canvas, scene: Scene, hair: Hair, area: Window, mask: Tensor) -> None:
    """Hair where `mask` `[B, H, W]` of the window says."""
    canvas.paint(area, mask, scene.hair)
    canvas.relight(area, mask, hair.shade[:, area.rows, area.columns])


def paint_front_hair(canvas: Canvas, scene: Scene, hair: Hair) -> None:
    """The hair above the hairline and down to the sideburns, with or without a fringe."""
    area, people, habits = canvas.window(-9.0, 9.0, -9.0, 0.6), scene.people, scene.habits
    top = people.hairline_y
    u, v = scene.frame((0.0, top, 0.0), fall_y=-0.25).local(area)
    hang = at_least(habits.fringe - 0.6, 0.0) * 0.9
    bare = at_least(0.12 - habits.fringe, 0.0) * 5.0
    square = u * u
    line = square * (people.hairline_bend + square * 0.35)
    line += hang - bare - v
    line += (u * scene.pictures.parting) * (hang + 0.1) * 2.0
    peak = at_least(1.0 - torch.abs(u) * 4.0, 0.0)
    line += peak * people.widows_peak
    line = torch.minimum(line, hair.inside[:, area.rows, area.columns])
    _paint_hair(canvas, scene, hair, area, cover(line, area.sharpness * 0.8))


def paint_ears(canvas: Canvas, scene: Scene) -> None:
    """Two ears far behind the eyes: a turn of the head hides one and shows the other."""
    people = scene.people
    shadow = mix(scene.skin, scene.hair, 0.35)
    for side in (-1.0, 1.0):
        left, right = sorted((side * 0.5, side * 1.7))
        area = canvas.window(left, right, -0.4, 1.0)
        x = (people.cheek_width + people.ear_out) * side
        frame = scene.frame((x, people.ear_y, _EAR_DEPTH + 0.25))
        u, v = frame.scaled(people.ear_size * 0.55, people.ear_size).local(area)
        outside = u * u + v * v
        sharpness = area.sharpness * people.ear_size * 0.3
        canvas.paint(area, cover(1.0 - outside, sharpness), scene.skin)
        inner = cover(0.35 - outside, sharpness)
        canvas.paint(area, inner, shadow)


def paint_face(canvas: Canvas, scene: Scene) -> Tensor:
    """Skin within the union of skull and jaw; returns the mask `[B, S, S]`."""
    area = canvas.full()
    skull, jaw = _skull(scene, area), _jaw(scene, area)
    # Smooth maximum (Quilez's polynomial): the cheek runs into the jaw without a corner.
    change = jaw.sub_(skull)
    blend = (change * (1.0 / 0.24)).add_(0.5).clamp_(0.0, 1.0)
    inside = skull.add_(change.mul_(blend))
    inside += (1.0 - blend).mul_(blend).mul_(0.12)
    mask = cover(inside, area.sharpness)
    canvas.paint(area, mask, scene.skin)
    canvas.relight(area, mask, face_light(scene, area))
    return mask


def _skull(scene: Scene, area: Window) -> Tensor:
    people = scene.people
    frame = scene.frame((0.0, 0.08, _SKULL_DEPTH * 0.7))
    width = people.cheek_width * _widening(scene)
    u, v = frame.scaled(width, 0.08 - people.skull_top).local(area)
    return (1.0 - u.mul_(u)).sub_(v.mul_(v)).mul_(0.5 * people.cheek_width)


def _jaw(scene: Scene, area: Window) -> Tensor:
    people = scene.people
    chin = people.chin_y + scene.mouth_drop * 0.55
    frame = scene.frame((0.0, 0.5, _JAW_DEPTH))
    width = people.jaw_width * 1.16 * _widening(scene)
    u, v = frame.scaled(width, chin - 0.5).local(area)
    u.mul_(u)
    v.mul_(v)
    # Clamped, since far outside the product would grow corners.
    square = (u * v).clamp_(max=1.0).mul_(clamp(people.jaw_square, 0.0, 0.9)).add_(1.0)
    return square.sub_(u).sub_(v).mul_(0.45 * people.jaw_width)


def _widening(scene: Scene) -> Tensor:
    """A head is nearly round: turned, its outline does not narrow as a flat patch would."""
    across, along = scene.view.row_x[2], scene.view.row_x[0]
    ratio = across / along
    return torch.sqrt(1.0 + ratio * ratio * 1.1)

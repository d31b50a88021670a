"""Mouth and beard: two lips with a bow, teeth behind them, folds beside them, hair around them."""

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import (
    Canvas,
    Window,
    at_least,
    at_most,
    clamp,
    color,
    cover,
    mix,
)
from manyface.data.synthetic.scene import Scene


def paint_beard(canvas: Canvas, scene: Scene, face: Tensor, strands: Tensor) -> None:
    """Moustache, chin and cheeks, at the length of the day; `face` is the mask of the skin."""
    amount = clamp((scene.habits.beard - 0.5) * 2.2, 0.0, 0.92)
    chosen = (amount[:, 0, 0] > 0.02).nonzero()[:, 0]
    if len(chosen) == 0:
        return
    part, few = canvas.take(chosen), scene.take(chosen)
    area = part.window(-1.2, 1.2, 0.5, 1.9)
    people = few.people
    middle = people.mouth_y + few.mouth_drop * 0.3
    u, v = few.frame((people.mouth_x, middle, 0.1)).local(area)
    cheeks = v + 0.28 - torch.abs(u) * 0.25
    side = u * u * 1.3 + 0.12
    hair = torch.minimum(cheeks, side + at_most(torch.abs(v), 0.22))
    mask = cover(hair, area.sharpness * 0.2)
    mask *= face[chosen][:, area.rows, area.columns]
    mask *= amount[chosen] * (1.0 + strands[chosen][:, area.rows, area.columns] * 0.3)
    part.paint(area, mask.clamp_(0.0, 1.0), few.hair)
    canvas.put(chosen, part)


def paint_mouth(canvas: Canvas, scene: Scene) -> None:
    outer = canvas.window(-0.8, 0.8, 0.7, 1.75)
    part, area = canvas.crop(outer)
    people = scene.people
    width = people.mouth_width * (1.0 + scene.smile * 0.14)
    opened = scene.mouth_drop
    point = (people.mouth_x, people.mouth_y + opened * 0.3, 0.12)
    u, v = scene.frame(point).local(area)
    t = u / width
    square = t * t
    corner = scene.smile * 0.1 + people.lip_corner
    v += square * corner - corner * 0.5
    arch = 1.0 - square
    _folds(part, scene, area, t, v)
    _lips(part, scene, area, t, v, arch)
    _inside(part, scene, area, v, arch)
    canvas.paste(outer, part)


def _lips(canvas: Canvas, scene: Scene, area: Window, t: Tensor, v: Tensor, arch: Tensor) -> None:
    people, pictures, opened = scene.people, scene.pictures, scene.mouth_drop
    thin = 1.0 - scene.smile * 0.2
    dip = at_least(1.0 - torch.abs(t) * 3.5, 0.0) * people.lip_bow
    top = v + arch * (people.lip_upper * thin + opened * 0.3) * (1.0 - dip)
    bottom = arch * (people.lip_lower * thin + opened * 0.75) - v
    lips = cover(torch.minimum(top, bottom), area.sharpness)
    makeup = clamp((pictures.makeup - 0.55) * 3.0, 0.0, 0.85)
    natural = mix(scene.skin, color(0.62, 0.22, 0.22), 0.5)
    stick = color(0.55, 0.05, 0.15) + pictures.makeup_tone * color(0.3, 0.15, 0.15)
    canvas.paint(area, lips, mix(natural, stick, makeup))
    # The upper lip faces down and is darker, the lower one catches light and shades the chin.
    tone = clamp(v * 6.0, -0.5, 0.5) * 0.28
    under = cover(0.07 - torch.abs(bottom + 0.07), 7.0)
    under *= clamp(arch * 1.2, 0.0, 1.0) * 0.3
    canvas.light(area, tone * lips - under)


def _inside(canvas: Canvas, scene: Scene, area: Window, v: Tensor, arch: Tensor) -> None:
    """The line between the lips, or what an open mouth shows: teeth above, darkness below."""
    opened = scene.mouth_drop
    gap = 0.012
    top = v + arch * (opened * 0.3) + gap
    bottom = arch * (opened * 0.75) + gap - v
    hole = cover(torch.minimum(torch.minimum(top, bottom), arch * 0.3), area.sharpness)
    canvas.paint(area, hole, color(0.17, 0.05, 0.05))
    teeth = torch.minimum(torch.minimum(0.085 - top, bottom - 0.02), arch * 0.2 - 0.03)
    shown = cover(teeth, area.sharpness) * hole * clamp(opened * 25.0)
    canvas.paint(area, shown, color(0.88, 0.85, 0.8))


def _folds(canvas: Canvas, scene: Scene, area: Window, t: Tensor, v: Tensor) -> None:
    """The folds from the wings of the nose around the corners of the mouth."""
    radius = t * t * 0.62
    below = v - 0.12
    radius += below * below * 2.6
    ring = clamp(1.0 - torch.abs(radius - 1.0) * 3.2)
    ring *= clamp(-v * 4.0 + 0.5)
    depth = scene.people.fold + at_least(scene.smile, 0.0) * 0.16
    canvas.light(area, ring * at_most(-depth, 0.0))

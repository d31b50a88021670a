"""Moles, glasses, and what gets in the way: sunglasses, scarf, hand, cap, an object."""

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, at_least, at_most, clamp, color, cover
from manyface.data.synthetic.scene import Scene

_IMAGE_PER_REACH = 24  # a mark touches this share of the image's side to each side


def darken_marks(canvas: Canvas, scene: Scene) -> None:
    """Two moles at most, each in a small patch around its own pixel."""
    people = scene.people
    for x, y, size in (
        (people.mole_1_x, people.mole_1_y, people.mole_1_size),
        (people.mole_2_x, people.mole_2_y, people.mole_2_size),
    ):
        chosen = _where(size > 0.012)
        if len(chosen):
            _mole(canvas, scene.take(chosen), chosen, x[chosen], y[chosen], size[chosen])


def _mole(canvas: Canvas, scene: Scene, chosen: Tensor, x: Tensor, y: Tensor, size: Tensor) -> None:
    depth = 0.15 - x * x * 0.5
    center_x, center_y = scene.view.project((x, y, depth))
    area = canvas.full()
    scale = area.sharpness
    column = (center_x - area.x[0, 0, 0]) * scale  # in pixels
    row = (center_y - area.y[0, 0, 0]) * scale
    far = canvas.size // _IMAGE_PER_REACH + 1
    reach = torch.arange(-far, far + 1)
    rows = row.long() + reach[None, :, None]  # [B, P, 1]
    columns = column.long() + reach[None, None, :]  # [B, 1, P]
    off_y, off_x = rows - row, columns - column
    distance = off_y * off_y + off_x * off_x
    radius = at_least(size * scale, 0.6)
    spot = clamp(1.3 - distance / (radius * radius)) * clamp(size * 30.0, 0.0, 0.62)
    last = canvas.size - 1
    inside = (rows >= 0) & (rows <= last) & (columns >= 0) & (columns <= last)
    place = (chosen[:, None, None], rows.clamp(0, last), columns.clamp(0, last))
    # Pixels outside repeat border pixels: they must write what is there already.
    canvas.shade[place] *= 1.0 - spot * inside


def paint_glasses(canvas: Canvas, scene: Scene) -> None:
    """Frames around the eyes; sunglasses are an occlusion and come with dark lenses."""
    dark = _has(scene, 0.0, 0.3)
    chosen = _where((scene.habits.glasses > 0.5) | dark)
    if len(chosen) == 0:
        return
    part, few = canvas.take(chosen), scene.take(chosen)
    area = part.window(-1.5, 1.5, -0.6, 0.65)
    tint = dark[chosen] * 0.87 + 0.06
    pictures = few.pictures
    shape = pictures.glasses_shape
    width = 0.36 + shape * 0.07
    height = 0.25 + pictures.makeup_tone * 0.08
    frame_color = _frame_color(pictures.glasses_tone)
    thick = 0.02 + pictures.glasses_tone * 0.03
    for side in (-1.0, 1.0):
        x = few.people.eye_x + 0.02
        frame = few.frame((x * side, 0.06, 0.22), fall_x=side * 0.15)
        u, v = frame.scaled(side * width, height).local(area)
        square_u, square_v = u * u, v * v
        both = at_most(square_u * square_v, 1.0)
        edge = (1.0 - square_u - square_v + both * shape) * height * 0.5
        part.paint(area, cover(edge.clone(), area.sharpness) * tint, color(0.05, 0.05, 0.06))
        rim = thick - torch.abs(edge)
        # The bar runs from the middle of the nose to the lens and from the lens to the ear.
        bar = thick - torch.abs(v + 0.3) * height
        bar = torch.minimum(bar, torch.abs(u) - 0.95)
        bar = torch.minimum(bar, (u + 0.02 + few.people.eye_x / width) * width)
        part.paint(area, cover(torch.maximum(rim, bar), area.sharpness), frame_color)
    canvas.put(chosen, part)


def paint_occlusions(canvas: Canvas, scene: Scene) -> None:
    """At most one of scarf, hand, cap and a flat object before the face."""
    for low, high, painter in (
        (0.3, 0.5, _scarf),
        (0.5, 0.7, _hand),
        (0.7, 0.85, _cap),
        (0.85, 1.01, _object),
    ):
        chosen = _where(_has(scene, low, high))
        if len(chosen):
            part = canvas.take(chosen)
            painter(part, scene.take(chosen))
            canvas.put(chosen, part)


def _has(scene: Scene, low: float, high: float) -> Tensor:
    kind = scene.pictures.occlusion_kind
    return (scene.occluded > 0.5) & (kind >= low) & (kind < high)


def _color(scene: Scene) -> Tensor:
    pictures = scene.pictures
    return torch.stack((pictures.occlusion_red, pictures.occlusion_green, pictures.occlusion_blue))


def _veil(canvas: Canvas, mask: Tensor, surface: Tensor, light: Tensor) -> None:
    """Something opaque with its own light over everything."""
    canvas.paint(canvas.full(), mask, surface)
    canvas.relight(canvas.full(), mask, light)


def _scarf(canvas: Canvas, scene: Scene) -> None:
    area, pictures = canvas.full(), scene.pictures
    u, v = scene.frame((0.0, 1.15, 0.1)).local(area)
    edge = v - pictures.occlusion_y * 0.5 + 0.15
    edge += u * u * 0.25 + u * pictures.occlusion_slope * 0.3
    ripple = edge * 2.6
    ripple -= torch.floor(ripple)
    light = 0.75 + torch.abs(ripple - 0.5) * 0.5
    _veil(canvas, cover(edge, area.sharpness), _color(scene), light)


def _hand(canvas: Canvas, scene: Scene) -> None:
    """Three or four fingers that come in from below or from the side."""
    area, pictures = canvas.full(), scene.pictures
    x = pictures.occlusion_x * 0.75
    y = 0.75 + pictures.occlusion_y * 0.6
    slope = pictures.occlusion_slope + x
    for finger in range(4):
        offset = (finger - 1.5) * 0.3
        top = y + 0.09 * (finger - 1.2) ** 2
        v = area.y - top
        u = area.x - x - offset - v * slope * 0.7
        drop = at_most(v - 0.14, 0.0)
        distance = u * u + drop * drop
        inside = (0.0225 - distance) * 3.3
        light = 1.05 - distance * 14.0 + u * scene.light.x
        _veil(canvas, cover(inside, area.sharpness), scene.skin * 0.92, light)


def _cap(canvas: Canvas, scene: Scene) -> None:
    area, pictures = canvas.full(), scene.pictures
    u, v = scene.frame((0.0, -0.62, 0.35), fall_y=-0.2).local(area)
    low = pictures.occlusion_y * 0.28 - 0.1
    edge = low - v - u * u * 0.1
    light = 0.65 + clamp(edge * 1.4, 0.0, 0.45)
    _veil(canvas, cover(edge, area.sharpness), _color(scene), light)


def _object(canvas: Canvas, scene: Scene) -> None:
    """A cup, a phone, a shoulder: a flat box over one part of the face."""
    area, pictures = canvas.full(), scene.pictures
    x = pictures.occlusion_x * 0.9
    y = pictures.occlusion_y * 1.8 - 0.4
    u, v = area.x - x, area.y - y
    u, v = u + v * pictures.occlusion_slope, v - u * pictures.occlusion_slope
    size = 0.28 + pictures.makeup_tone * 0.2
    inside = torch.minimum(size - torch.abs(u), size * 1.3 - torch.abs(v))
    light = 0.9 + u * 0.3
    _veil(canvas, cover(inside, area.sharpness), _color(scene), light)


def _frame_color(tone: Tensor) -> Tensor:
    return color(0.06, 0.05, 0.05) + tone * tone * color(0.35, 0.2, 0.12)


def _where(condition: Tensor) -> Tensor:
    return condition[:, 0, 0].nonzero()[:, 0]

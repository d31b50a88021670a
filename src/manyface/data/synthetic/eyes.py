"""Eyes and brows: lids, white, iris, pupil, highlight, lash line, crease, brow."""

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, Window, at_least, clamp, color, cover, mix
from manyface.data.synthetic.geometry import Frame
from manyface.data.synthetic.scene import Scene

_CURVE = 0.3  # how fast the surface recedes beside the eyes


def paint_eyes(canvas: Canvas, scene: Scene) -> None:
    for side in (-1.0, 1.0):
        left, right = sorted((side * 0.05, side * 1.05))
        area = canvas.window(left, right, -0.4, 0.35)
        part, inner = canvas.crop(area)
        _eye(part, scene, side, inner)
        canvas.paste(area, part)
        _brow(canvas, scene, side, canvas.window(left, right, -0.75, 0.05))


def _frame(scene: Scene, side: float, x: Tensor, y: Tensor | float, depth: float) -> Frame:
    """A patch beside the middle, mirrored so that u grows outwards on both sides."""
    frame = scene.frame((x * side, y, depth), fall_x=side * _CURVE)
    return frame.scaled(side, 1.0)


def _eye(canvas: Canvas, scene: Scene, side: float, area: Window) -> None:
    people, pictures = scene.people, scene.pictures
    opened = clamp(pictures.lids - at_least(scene.smile, 0.0) * 0.12, 0.12, 1.25)
    tilt = -people.eye_tilt
    u, v = _frame(scene, side, people.eye_x, 0.0, 0.0).rotated(tilt).local(area)
    t = u / people.eye_width
    arch = 1.0 - t * t  # 1 at the middle of the lids, 0 at their corners, negative outside
    upper = v + arch * (people.eye_upper * opened)
    lower = arch * people.eye_lower - v
    _lids(canvas, scene, area, v, arch, upper)
    ball = cover(torch.minimum(upper, lower), area.sharpness)
    gaze_u = pictures.gaze_x * side
    du = u - gaze_u
    dv = v - (pictures.gaze_y - 0.025)
    distance = du * du
    distance += dv * dv
    canvas.paint(area, ball, color(0.88, 0.85, 0.83))
    radius = people.iris_radius
    over = 0.5 / radius
    iris = cover((radius * radius - distance) * over, area.sharpness) * ball
    canvas.paint(area, iris, scene.iris)
    pupil = radius * 0.45
    hole = cover((pupil * pupil - distance) * (0.5 / pupil), area.sharpness) * ball
    canvas.paint(area, hole, color(0.03, 0.03, 0.03))
    _highlight(canvas, scene, side, area, du, dv, ball)
    # The upper lid and its lashes shade the ball.
    canvas.paint(area, ball * clamp(0.5 - upper * 6.0), color(0.1, 0.07, 0.06))


def _highlight(
    canvas: Canvas, scene: Scene, side: float, area: Window, du: Tensor, dv: Tensor, ball: Tensor
) -> None:
    light = scene.light
    hx = du - light.x * (0.07 * side)
    hy = dv - light.y * 0.07
    spot = clamp(1.6 - (hx * hx + hy * hy) * (1.6 / 0.0016))
    canvas.paint(area, spot * ball * 0.85, color(1.0, 1.0, 1.0))


def _lids(
    canvas: Canvas, scene: Scene, area: Window, v: Tensor, arch: Tensor, upper: Tensor
) -> None:
    """Eye shadow, the crease above the lid, and the dark line of the lashes."""
    people, pictures = scene.people, scene.pictures
    near = clamp(arch * 4.0 + 0.6)
    rise = upper + people.eye_crease
    makeup = clamp((pictures.makeup - 0.7) * 2.5, 0.0, 0.6)
    painted = near * cover(torch.minimum(rise, -upper), area.sharpness * 0.7)
    canvas.paint(area, painted * makeup, _shadow_color(pictures.makeup_tone))
    crease = clamp(1.0 - torch.abs(rise) * 28.0) * near
    canvas.paint(area, crease * 0.5, scene.skin * 0.45)
    thick = 26.0 - makeup * 14.0
    lashes = clamp(1.2 - torch.abs(upper) * thick) * near
    canvas.paint(area, lashes * 0.85, color(0.08, 0.06, 0.05))


def _brow(canvas: Canvas, scene: Scene, side: float, area: Window) -> None:
    people, pictures = scene.people, scene.pictures
    y = people.brow_y - pictures.brow_raise
    frame = _frame(scene, side, people.brow_x, y, 0.13)
    u, v = frame.rotated(pictures.frown - people.brow_tilt).local(area)
    t = u / people.brow_length
    square = t * t
    center = people.brow_arch * (square - 0.5)
    thick = people.brow_thick * (1.0 - t * 0.35)
    thick = at_least(thick, 0.012)
    inside = thick * (1.0 - square * square) - torch.abs(v - center)
    hair = mix(scene.hair, color(0.06, 0.04, 0.03), 0.45)
    density = clamp(people.brow_density, 0.25, 1.0)
    canvas.paint(area, cover(inside, area.sharpness * 0.8) * density, hair)


def _shadow_color(tone: Tensor) -> Tensor:
    return color(0.35, 0.2, 0.45) + tone * color(0.3, 0.1, -0.25)

"""From a turned head in three dimensions to an aligned crop, as a face detector would cut it.

Points of the head are (x, y, z) in face units, z towards the viewer, the eyes at z = 0. The head is
turned and nodded, projected in parallel, and its five landmarks are fitted to the ArcFace template
by the least-squares similarity (Umeyama 1991, no reflection): what remains of the pose is parallax,
the displacement of each feature by its depth, and foreshortening, as in real aligned crops.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import TEMPLATE_POINTS, Window, at_least

Number = Tensor | float  # the same for the whole batch, or [B, 1, 1]
Point = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Plane:
    """A linear function of the image: x * area.x + y * area.y - offset, each `[B, 1, 1]`."""

    x: Tensor
    y: Tensor
    offset: Tensor

    def on(self, area: Window) -> Tensor:
        """Its values in a window, `[B, H, W]`: one operation on pixels."""
        return area.x * self.x + (area.y * self.y - self.offset)

    def times(self, factor: Number) -> "Plane":
        return Plane(self.x * factor, self.y * factor, self.offset * factor)

    def plus(self, other: "Plane") -> "Plane":
        return Plane(self.x + other.x, self.y + other.y, self.offset + other.offset)

    def pick(self, k: int) -> "Plane":
        """Plane k of a stack of planes `[K, B, 1, 1]`."""
        return Plane(self.x[k], self.y[k], self.offset[k])


@dataclass(frozen=True)
class Frame:
    """A flat patch of the head's surface: image coordinates to coordinates on the patch."""

    u: Plane
    v: Plane

    def local(self, area: Window) -> tuple[Tensor, Tensor]:
        """Coordinates on the patch, u along its x and v along its y, `[B, H, W]` each."""
        return self.u.on(area), self.v.on(area)

    def scaled(self, radius_u: Number, radius_v: Number) -> "Frame":
        """The same patch measured in these radii, so that its unit circle is an ellipse."""
        return Frame(self.u.times(1.0 / radius_u), self.v.times(1.0 / radius_v))

    def rotated(self, slope: Number) -> "Frame":
        """The same patch with its u axis sloping downwards by `slope` (a small tangent)."""
        return Frame(self.u.plus(self.v.times(slope)), self.v.plus(self.u.times(-slope)))

    def blend(self, of_u: Number, of_v: Number) -> Plane:
        """The plane `of_u * u + of_v * v`."""
        return self.u.times(of_u).plus(self.v.times(of_v))

    def slope_light(self, light: "Light") -> tuple[Tensor, Tensor]:
        """What the image's light gains from a unit slope of the surface along u and along v."""
        return (
            light.x * self.u.x + light.y * self.u.y,
            light.x * self.v.x + light.y * self.v.y,
        )


@dataclass(frozen=True)
class Light:
    """Direction towards the light in the image's frame (z to the viewer), each `[B, 1, 1]`."""

    x: Tensor
    y: Tensor
    z: Tensor


@dataclass(frozen=True)
class View:
    """The projection of one image: (x, y, z) of the head to image coordinates, rows of a 2x4."""

    row_x: tuple[Tensor, Tensor, Tensor, Tensor]
    row_y: tuple[Tensor, Tensor, Tensor, Tensor]

    def project(self, point: Point) -> tuple[Tensor, Tensor]:
        x, y, z = point
        a, b, c, d = self.row_x
        e, f, g, h = self.row_y
        return a * x + b * y + c * z + d, e * x + f * y + g * z + h

    def frame(self, point: Point, *, fall_x: Number = 0.0, fall_y: Number = 0.0) -> Frame:
        """The patch at `point` whose depth falls by `fall_x` (`fall_y`) per unit along x (y)."""
        x, y = self.project(point)
        a = self.row_x[0] - self.row_x[2] * fall_x
        b = self.row_x[1] - self.row_x[2] * fall_y
        c = self.row_y[0] - self.row_y[2] * fall_x
        d = self.row_y[1] - self.row_y[2] * fall_y
        over = 1.0 / at_least(a * d - b * c, 0.15)
        u_x, u_y, v_x, v_y = d * over, -b * over, -c * over, a * over
        return Frame(Plane(u_x, u_y, x * u_x + y * u_y), Plane(v_x, v_y, x * v_x + y * v_y))


def sine_cosine(half_tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine from tan(angle / 2): exact operations only, unlike a library's sin."""
    square = half_tangent * half_tangent
    over = 1.0 / (square + 1.0)
    return half_tangent * over * 2.0, (1.0 - square) * over


def aligned_view(
    landmarks: tuple[Point, ...],
    *,
    turn: Tensor,
    nod: Tensor,
    tilt: Tensor,
    zoom: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
) -> View:
    """The view in which the landmarks fit the template, then misaligned by tilt, zoom and shift.

    Args:
        landmarks: the head's eyes, nose tip and corners of the mouth, in the template's order.
        turn: tan(angle / 2) of yaw; positive shows the head's left side.
        nod: tan(angle / 2) of pitch.
        tilt: tan(angle / 2) of the residual roll.
    """
    head = _turned(turn, nod)
    points = [head.project(point) for point in landmarks]
    scale, skew = _similarity(points)
    sine, cosine = sine_cosine(tilt)
    scale, skew = (scale * cosine - skew * sine) * zoom, (scale * sine + skew * cosine) * zoom
    rows = _compose(head, scale, skew)
    center_x, center_y = rows.project(_mean_point(landmarks))
    mean_x = sum(x for x, _ in TEMPLATE_POINTS) / len(TEMPLATE_POINTS)
    mean_y = sum(y for _, y in TEMPLATE_POINTS) / len(TEMPLATE_POINTS)
    return View(
        (*rows.row_x[:3], mean_x - center_x + shift_x),
        (*rows.row_y[:3], mean_y - center_y + shift_y),
    )


def _turned(turn: Tensor, nod: Tensor) -> View:
    sin_turn, cos_turn = sine_cosine(turn)
    sin_nod, cos_nod = sine_cosine(nod)
    zero = torch.zeros_like(turn)
    return View(
        (cos_turn, zero, sin_turn, zero),
        (sin_nod * sin_turn, cos_nod, -sin_nod * cos_turn, zero),
    )


def _similarity(points: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Scale * cosine and scale * sine of the similarity from points to the template."""
    count = 1.0 / len(points)
    mean_x = _total([x for x, _ in points]) * count
    mean_y = _total([y for _, y in points]) * count
    centered = [(x - mean_x, y - mean_y) for x, y in points]
    pairs = list(zip(centered, TEMPLATE_POINTS, strict=True))
    along = _total([x * p + y * q for (x, y), (p, q) in pairs])
    across = _total([x * q - y * p for (x, y), (p, q) in pairs])
    over = 1.0 / _total([x * x + y * y for x, y in centered])
    return along * over, across * over


def _compose(head: View, scale: Tensor, skew: Tensor) -> View:
    first = [scale * a - skew * b for a, b in zip(head.row_x, head.row_y, strict=True)]
    second = [skew * a + scale * b for a, b in zip(head.row_x, head.row_y, strict=True)]
    return View(
        (first[0], first[1], first[2], first[3]), (second[0], second[1], second[2], second[3])
    )


def _mean_point(points: tuple[Point, ...]) -> Point:
    count = 1.0 / len(points)
    x, y, z = (_total([torch.as_tensor(p[k]) for p in points]) * count for k in range(3))
    return x, y, z


def _total(values: list[Tensor]) -> Tensor:
    """Sum from left to right: one fixed order of rounding."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result

"""The light on the face: an ellipsoid with bumps, each a smooth hill on a patch of the surface.

A hill of height h over a patch with radii (r_u, r_v) is h (1 - q)^2 / 4 with q = (u/r_u)^2 +
(v/r_v)^2 inside the unit circle. Its slope towards a light from (l_u, l_v) is h (1 - q) times
(u l_u / r_u^2 + v l_v / r_v^2), so a bump costs a dozen operations in a small window. Hollows also
get less of the sky: that part of their darkness does not move with the light.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, Window
from manyface.data.synthetic.geometry import Number, Point
from manyface.data.synthetic.scene import Scene


def face_light(scene: Scene, area: Window) -> Tensor:
    """Light on a smooth head without features, `[B, H, W]`, about 1 where it is lit fully."""
    people = scene.people
    frame = scene.frame((0.0, 0.3, -0.3)).scaled(
        people.cheek_width * (1.12 / 0.85), (people.chin_y - people.skull_top) * (0.55 / 0.6)
    )
    u, v = frame.local(area)
    facing = (1.0 - u.mul_(u)).sub_(v.mul_(v)).clamp_(min=0.08).sqrt_()
    light, strength = scene.light, scene.diffuse * 1.15
    facing *= light.z * strength
    facing += frame.blend(light.x * strength, light.y * strength).on(area)
    return facing.clamp_(min=0.0).add_(1.0 - scene.diffuse)


@dataclass(frozen=True, kw_only=True)
class Hill:
    """A hill on the face, or a hollow.

    Args:
        point: its center on the head.
        radius_u, radius_v: where it ends, face units.
        height: the slope it reaches, about; 1 is 45 degrees, negative is a hollow.
        sky: light that its center gains, or loses, whatever the direction of the light.
        fall_x, fall_y: how fast the surface that it stands on recedes along x and y.
        reach: left, right, top and bottom of the window that holds it in nearly every image.
    """

    point: Point
    radius_u: Number
    radius_v: Number
    height: Number = 0.0
    sky: Number = 0.0
    fall_x: Number = 0.0
    fall_y: Number = 0.0
    reach: tuple[float, float, float, float]


def light_hills(canvas: Canvas, scene: Scene, hills: Sequence[Hill]) -> None:
    """Add the light of all hills; their frames are computed at once, as `[K, B, 1, 1]`."""
    batch = scene.diffuse

    def stack(values: Iterable[Number]) -> Tensor:
        return torch.stack([torch.as_tensor(value).expand_as(batch) for value in values])

    radius_u, radius_v = stack(h.radius_u for h in hills), stack(h.radius_v for h in hills)
    x, y, z = (stack(h.point[k] for h in hills) for k in range(3))
    fall_x, fall_y = stack(h.fall_x for h in hills), stack(h.fall_y for h in hills)
    frames = scene.frame((x, y, z), fall_x=fall_x, fall_y=fall_y)
    light_u, light_v = frames.slope_light(scene.light)
    strength = stack(h.height for h in hills) * batch
    frames = frames.scaled(radius_u, radius_v)
    slopes = frames.blend(light_u * strength, light_v * strength)
    sky = stack(h.sky for h in hills)
    for k, hill in enumerate(hills):
        area = canvas.window(*hill.reach)
        u, v = frames.u.pick(k).on(area), frames.v.pick(k).on(area)
        rise = (1.0 - u.mul_(u)).sub_(v.mul_(v)).clamp_(min=0.0)
        canvas.light(area, slopes.pick(k).on(area).add_(rise * sky[k]).mul_(rise))

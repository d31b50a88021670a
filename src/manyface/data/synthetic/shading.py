"""The light on the face: an ellipsoid with bumps, each a smooth hill on a patch of the surface.

A hill of height h over a patch with radii (r_u, r_v) is h (1 - q)^2 / 4 with q = (u/r_u)^2 +
(v/r_v)^2 inside the unit circle. Its slope towards a light from (l_u, l_v) is h (1 - q) times
(u l_u / r_u^2 + v l_v / r_v^2), so a bump costs a dozen operations in a small window. Hollows also
get less of the sky: that part of their darkness does not move with the light.
"""

from torch import Tensor

from manyface.data.synthetic.canvas import Canvas, Window
from manyface.data.synthetic.geometry import Frame
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
    facing += frame.linear(area, light.x * strength, light.y * strength)
    return facing.clamp_(min=0.0).add_(1.0 - scene.diffuse)


def bump(
    canvas: Canvas,
    scene: Scene,
    area: Window,
    frame: Frame,
    *,
    radius_u: Tensor | float,
    radius_v: Tensor | float,
    height: Tensor | float,
    sky: Tensor | float = 0.0,
) -> None:
    """Light a hill (or a hollow: negative height); `sky` is added at its center whatever the light.

    Args:
        frame: the patch it stands on.
        radius_u, radius_v: where it ends, face units.
        height: slope it reaches, about; 1 is 45 degrees.
        sky: light that the center gains (hills) or loses (hollows).
    """
    frame = frame.scaled(radius_u, radius_v)
    u, v = frame.local(area)
    hill = (1.0 - u.mul_(u)).sub_(v.mul_(v)).clamp_(min=0.0)
    light_u, light_v = frame.slope_light(scene.light, radius_u, radius_v)
    strength = scene.diffuse * height
    slope = frame.linear(area, light_u * strength, light_v * strength)
    canvas.light(area, slope.add_(hill * sky).mul_(hill))

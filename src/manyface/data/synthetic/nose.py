"""Nose, cheeks and chin: mostly light and shadow, since they have the colour of the skin."""

from manyface.data.synthetic.canvas import Canvas, Window, at_least, clamp, cover
from manyface.data.synthetic.scene import Scene
from manyface.data.synthetic.shading import bump


def paint_nose(canvas: Canvas, scene: Scene) -> None:
    area = canvas.window(-0.6, 0.6, -0.35, 1.0)
    _bridge(canvas, scene, area)
    _wings(canvas, scene, canvas.window(-0.65, 0.65, 0.2, 1.0))
    _tip(canvas, scene, canvas.window(-0.6, 0.6, 0.15, 1.05))
    _nostrils(canvas, scene, canvas.window(-0.5, 0.5, 0.35, 1.0))


def light_relief(canvas: Canvas, scene: Scene) -> None:
    """Cheekbones, chin and the hollow below the lower lip."""
    people = scene.people
    for side in (-1.0, 1.0):
        left, right = sorted((side * 0.05, side * 1.25))
        cheek = scene.frame((side * 0.62, people.cheek_y, -0.05), fall_x=side * 0.4)
        height = people.cheek_height + scene.smile * 0.25
        bump(
            canvas, scene, canvas.window(left, right, 0.0, 1.15), cheek,
            radius_u=0.42, radius_v=0.38, height=height, sky=height * 0.16,
        )  # fmt: skip
    chin_y = people.chin_y + scene.mouth_drop * 0.55 - 0.2
    area = canvas.window(-0.7, 0.7, 1.1, 1.8)
    chin = scene.frame((people.mouth_x * 0.5, chin_y, 0.05))
    bump(
        canvas, scene, area, chin,
        radius_u=0.34, radius_v=0.24, height=people.chin_height, sky=people.chin_height * 0.12,
    )  # fmt: skip
    bump(
        canvas, scene, area, chin,
        radius_u=0.05, radius_v=0.16, height=0.0,
        sky=-at_least(people.chin_cleft, 0.0),
    )  # fmt: skip


def _bridge(canvas: Canvas, scene: Scene, area: Window) -> None:
    """A ridge from between the eyes to the tip; it leans forward, so it swings when one turns."""
    people = scene.people
    lean = people.nose_depth / at_least(people.nose_y, 0.25) * 0.8
    middle = people.nose_y * 0.42
    point = (people.nose_x * 0.5, middle, people.nose_depth * 0.45)
    ridge = scene.frame(point, fall_y=-lean)
    bump(
        canvas, scene, area, ridge,
        radius_u=people.bridge_width + 0.06,
        radius_v=people.nose_y * 0.85,
        height=people.bridge_height * 1.25, sky=people.bridge_height * 0.16,
    )  # fmt: skip
    bump(
        canvas, scene, area, ridge,
        radius_u=people.bridge_width, radius_v=0.17,
        height=people.bridge_hump * 0.5, sky=people.bridge_hump * 0.12,
    )  # fmt: skip


def _tip(canvas: Canvas, scene: Scene, area: Window) -> None:
    people = scene.people
    tip = scene.frame((people.nose_x, people.nose_y - 0.03, people.nose_depth))
    bump(
        canvas, scene, area, tip,
        radius_u=people.nose_tip * 1.35, radius_v=people.nose_tip * 1.2,
        height=people.nose_tip_height * 0.8, sky=0.2,
    )  # fmt: skip


def _wings(canvas: Canvas, scene: Scene, area: Window) -> None:
    """The wings, the grooves around them, and the shadow below the nose."""
    people = scene.people
    y, z = people.nose_y + 0.02, people.nose_depth * 0.45
    below = scene.frame((people.nose_x, people.nose_y + 0.15, z), fall_y=0.3)
    bump(
        canvas, scene, area, below,
        radius_u=people.nose_width * 1.25, radius_v=0.14, height=0.0, sky=-0.28,
    )  # fmt: skip
    for side in (-1.0, 1.0):
        x = people.nose_x + people.nose_width * (side * 1.02)
        groove = scene.frame((x, y, z - 0.1))
        bump(
            canvas, scene, area, groove,
            radius_u=0.1, radius_v=0.17, height=0.0, sky=-0.3,
        )  # fmt: skip
        x = people.nose_x + people.nose_width * (side * 0.72)
        wing = scene.frame((x, y, z))
        bump(
            canvas, scene, area, wing,
            radius_u=people.nose_width * 0.42, radius_v=0.13, height=0.6, sky=0.12,
        )  # fmt: skip


def _nostrils(canvas: Canvas, scene: Scene, area: Window) -> None:
    people = scene.people
    z = people.nose_depth * 0.6
    dark = scene.skin * 0.28
    radius = clamp(people.nostril, 0.02, 0.12)
    for side in (-1.0, 1.0):
        x = people.nose_x + people.nose_width * (side * 0.46)
        frame = scene.frame((x, people.nose_y + 0.085, z))
        u, v = frame.rotated(-0.35 * side).local(area)
        u *= 1.0 / (radius * 1.5)
        v *= 1.0 / (radius * 0.75)
        inside = (1.0 - u * u - v * v) * (radius * 0.4)
        mask = cover(inside, area.sharpness) * 0.8
        canvas.paint(area, mask, dark)

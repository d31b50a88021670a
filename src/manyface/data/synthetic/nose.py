"""The nostrils; the rest of the nose has the colour of the skin and is light and shadow only."""

from manyface.data.synthetic.canvas import Canvas, clamp, cover
from manyface.data.synthetic.scene import Scene


def paint_nostrils(canvas: Canvas, scene: Scene) -> None:
    area = canvas.window(-0.5, 0.5, 0.35, 1.0)
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

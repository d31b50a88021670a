"""The relief of the face as a list of hills: sockets, bags, cheekbones, nose, chin."""

from collections.abc import Iterator

from manyface.data.synthetic.canvas import at_least
from manyface.data.synthetic.scene import Scene
from manyface.data.synthetic.shading import Hill

SIDES = (-1.0, 1.0)


def face_hills(scene: Scene) -> list[Hill]:
    """All hills and hollows of the batch's faces."""
    return [*_sockets(scene), *_cheeks(scene), *_nose(scene), *_wings(scene), *_chin(scene)]


def _sockets(scene: Scene) -> Iterator[Hill]:
    people = scene.people
    for side in SIDES:
        left, right = sorted((side * -0.05, side * 1.15))
        yield Hill(
            point=((people.eye_x - 0.04) * side, -0.03, 0.0),
            fall_x=side * 0.3,
            radius_u=0.46,
            radius_v=0.36,
            height=people.eye_depth * -0.9,
            sky=people.eye_depth * -0.42,
            reach=(left, right, -0.5, 0.45),
        )
        yield Hill(  # the bag below the eye
            point=(people.eye_x * side, people.eye_lower + 0.14, 0.02),
            fall_x=side * 0.3,
            radius_u=0.3,
            radius_v=0.12,
            height=0.25,
            sky=people.eye_bags * -1.2,
            reach=(left, right, -0.05, 0.5),
        )


def _cheeks(scene: Scene) -> Iterator[Hill]:
    people = scene.people
    height = people.cheek_height + scene.smile * 0.25
    for side in SIDES:
        left, right = sorted((side * 0.05, side * 1.25))
        yield Hill(
            point=(side * 0.62, people.cheek_y, -0.05),
            fall_x=side * 0.4,
            radius_u=0.42,
            radius_v=0.38,
            height=height,
            sky=height * 0.16,
            reach=(left, right, 0.0, 1.2),
        )


def _nose(scene: Scene) -> Iterator[Hill]:
    """Bridge and tip; the bridge leans forward, so that it swings when the head turns."""
    people = scene.people
    point = (people.nose_x * 0.5, people.nose_y * 0.42, people.nose_depth * 0.45)
    lean = people.nose_depth / at_least(people.nose_y, 0.25) * 0.8
    yield Hill(
        point=point,
        fall_y=-lean,
        radius_u=people.bridge_width + 0.06,
        radius_v=people.nose_y * 0.85,
        height=people.bridge_height * 1.25,
        sky=people.bridge_height * 0.16,
        reach=(-0.6, 0.6, -0.35, 1.0),
    )
    yield Hill(  # the hump of the bridge
        point=point,
        fall_y=-lean,
        radius_u=people.bridge_width,
        radius_v=0.17,
        height=people.bridge_hump * 0.5,
        sky=people.bridge_hump * 0.12,
        reach=(-0.5, 0.5, -0.1, 0.6),
    )
    yield Hill(
        point=(people.nose_x, people.nose_y - 0.03, people.nose_depth),
        radius_u=people.nose_tip * 1.35,
        radius_v=people.nose_tip * 1.2,
        height=people.nose_tip_height * 0.8,
        sky=0.2,
        reach=(-0.6, 0.6, 0.15, 1.05),
    )


def _wings(scene: Scene) -> Iterator[Hill]:
    """The wings of the nose, the grooves around them, and the shadow below."""
    people = scene.people
    y, z = people.nose_y + 0.02, people.nose_depth * 0.45
    yield Hill(
        point=(people.nose_x, people.nose_y + 0.15, z),
        fall_y=0.3,
        radius_u=people.nose_width * 1.25,
        radius_v=0.14,
        sky=-0.28,
        reach=(-0.65, 0.65, 0.3, 1.15),
    )
    for side in SIDES:
        left, right = sorted((side * -0.2, side * 0.65))
        yield Hill(
            point=(people.nose_x + people.nose_width * (side * 1.02), y, z - 0.1),
            radius_u=0.1,
            radius_v=0.17,
            sky=-0.3,
            reach=(left, right, 0.2, 1.05),
        )
        yield Hill(
            point=(people.nose_x + people.nose_width * (side * 0.72), y, z),
            radius_u=people.nose_width * 0.42,
            radius_v=0.13,
            height=0.6,
            sky=0.12,
            reach=(left, right, 0.2, 1.05),
        )


def _chin(scene: Scene) -> Iterator[Hill]:
    people = scene.people
    point = (people.mouth_x * 0.5, people.chin_y + scene.mouth_drop * 0.55 - 0.2, 0.05)
    yield Hill(
        point=point,
        radius_u=0.34,
        radius_v=0.24,
        height=people.chin_height,
        sky=people.chin_height * 0.12,
        reach=(-0.7, 0.7, 1.1, 1.8),
    )
    yield Hill(  # the cleft
        point=point,
        radius_u=0.05,
        radius_v=0.16,
        sky=-at_least(people.chin_cleft, 0.0),
        reach=(-0.4, 0.4, 1.1, 1.8),
    )

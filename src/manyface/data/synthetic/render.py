"""A batch of people under a batch of conditions, painted from back to front."""

import torch
from torch import Tensor

from manyface.data.synthetic import camera, eyes, head, mouth, nose, outfit
from manyface.data.synthetic.canvas import Canvas
from manyface.data.synthetic.relief import face_hills
from manyface.data.synthetic.scene import Scene
from manyface.data.synthetic.shading import light_hills
from manyface.data.synthetic.textures import Textures


def render(scene: Scene, textures: Textures, *, image_size: int) -> Tensor:
    """Pictures of the scene, uint8 `[B, S, S, 3]`."""
    pictures = scene.pictures
    count = len(pictures.turn)
    canvas = Canvas(
        torch.empty((3, count, image_size, image_size)),
        torch.empty((count, image_size, image_size)),
    )
    place = (pictures.texture_x, pictures.texture_y)
    strands = textures.strands(*place)
    head.paint_background(canvas, scene, textures.blotches(*place))
    hair = head.paint_back_hair(canvas, scene, strands)
    head.paint_neck(canvas, scene)
    head.paint_ears(canvas, scene)
    face = head.paint_face(canvas, scene)
    light_hills(canvas, scene, face_hills(scene))
    mouth.paint_beard(canvas, scene, face, strands)
    mouth.paint_mouth(canvas, scene)
    nose.paint_nostrils(canvas, scene)
    outfit.darken_marks(canvas, scene)
    eyes.paint_eyes(canvas, scene)
    head.paint_front_hair(canvas, scene, hair)
    outfit.paint_glasses(canvas, scene)
    outfit.paint_occlusions(canvas, scene)
    planes = camera.expose(canvas, scene)
    camera.soften(planes, scene)
    return camera.develop(planes, textures.grain(pictures.noise_x, pictures.noise_y), scene)

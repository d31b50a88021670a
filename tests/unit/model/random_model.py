"""The smallest model, with random weights."""

import torch

from manyface.backbones.recognise import Architecture
from manyface.model import FaceModel, Preprocessing, Threshold
from manyface.model.fingerprint import hash_of_tensors

SIZE, DIM = 32, 16
THRESHOLD = Threshold(0.3125, 1e-3, 0.9, "lfw", 3000, 3000)


def make_model(seed: int = 1, **options: object) -> FaceModel:
    """The smallest net, random; `options` of FaceModel."""
    architecture = Architecture("tiny", DIM, SIZE)
    net = architecture.build(seed=seed).eval().requires_grad_(False)
    return FaceModel(
        net,
        **{
            "name": "random",
            "weights": hash_of_tensors(net.state_dict()),
            "embedding_size": DIM,
            "preprocessing": Preprocessing(SIZE),
            "device": torch.device("cpu"),
            "architecture": architecture,
            "threshold": THRESHOLD,
            "provenance": {"run": "none"},
            "license": "for tests",
            **options,
        },
    )

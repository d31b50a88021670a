"""Fine-tune: a trained backbone, new people, a new head.

    python examples/fine_tune.py [--weights backbone.safetensors]

The new head learns alone first, so that its random centers do not spoil the backbone; then both.
Weights may be ours or insightface's of the same net (`load_backbone_weights` reads both). Without
`--weights` the example trains for a moment on other people first.
"""

import argparse
from pathlib import Path

import torch

import manyface as mf
from manyface.backbones import load_backbone_weights
from manyface.data import Augmentation, Loader
from manyface.data.synthetic import SyntheticFaces

SIZE, DIM = 48, 128


def people(first: int, count: int) -> SyntheticFaces:
    return SyntheticFaces(
        num_identities=count, images_per_identity=10, image_size=SIZE, first_identity=first
    )


def train(
    backbone: torch.nn.Module, faces: SyntheticFaces, *, steps: int, frozen_steps: int = 0
) -> float:
    """Train `backbone` with a new head; it stays frozen for the first `frozen_steps`."""
    head = mf.FullFC(num_classes=faces.num_identities, dim=DIM, margin=mf.CosFace(0.2), scale=32)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.02, momentum=0.9)
    loader = Loader(faces, batch_size=64, seed=0, augmentation=Augmentation())
    for step, batch in enumerate(loader.batches(stop_step=steps)):
        frozen = step < frozen_steps
        backbone.train(not frozen)  # frozen means its batch norms' statistics too
        with torch.set_grad_enabled(not frozen):
            embeddings = backbone(batch.images)
        loss = head(embeddings, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        head.step(lr=0.005)  # docs/heads.md has the rule
        if not frozen:
            optimizer.step()
    return float(loss.detach())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    backbone = mf.create_backbone("tiny", embedding_size=DIM, image_size=SIZE)
    if options.weights:
        load_backbone_weights(backbone, options.weights)
    else:
        print(f"first people: loss {train(backbone, people(0, 500), steps=options.steps):.3f}")
    new = people(500, 300)
    loss = train(backbone, new, steps=options.steps, frozen_steps=options.steps // 4)
    print(f"new people:   loss {loss:.3f}")

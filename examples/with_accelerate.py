"""The head beside Hugging Face Accelerate: prepare the backbone, leave the head as it is.

pip install accelerate && python examples/with_accelerate.py
"""

import argparse

import torch
from accelerate import Accelerator

import manyface as mf
from manyface.data import Augmentation, Loader
from manyface.data.synthetic import SyntheticFaces

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
options = parser.parse_args()

accelerator = Accelerator()
faces = SyntheticFaces(num_identities=1000, images_per_identity=20, image_size=48)
loader = Loader(faces, batch_size=64, seed=0, augmentation=Augmentation())

backbone = mf.create_backbone("tiny", embedding_size=128, image_size=48)
optimizer = torch.optim.SGD(backbone.parameters(), lr=0.05, momentum=0.9)
backbone, optimizer = accelerator.prepare(backbone, optimizer)
head = mf.FullFC(
    num_classes=faces.num_identities,
    dim=128,
    margin=mf.ArcFace(0.2),
    scale=32,
    device=accelerator.device,
)

for step, batch in enumerate(loader.batches(stop_step=options.steps), start=1):
    images = batch.images.to(accelerator.device)
    labels = batch.labels.to(accelerator.device)
    with accelerator.autocast():
        embeddings = backbone(images)
    loss = head(embeddings, labels)
    optimizer.zero_grad()
    accelerator.backward(loss)
    optimizer.step()
    head.step(lr=0.0025)  # docs/heads.md has the rule
    if step % 50 == 0 or step == options.steps:
        accelerator.print(f"step {step:4d}  loss {loss.item():6.3f}")

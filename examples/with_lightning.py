"""The head inside a Lightning module: manual optimization, the head moved after the optimizer.

pip install lightning && python examples/with_lightning.py
"""

import argparse
from collections.abc import Iterator

import lightning
import torch
from torch.utils.data import DataLoader, IterableDataset

import manyface as mf
from manyface.data import Augmentation, Loader
from manyface.data.synthetic import SyntheticFaces

Pair = tuple[torch.Tensor, torch.Tensor]


class Batches(IterableDataset[Pair]):
    """Whole batches, made by manyface's own prefetching loader."""

    def __init__(self, loader: Loader, num_steps: int) -> None:
        self.loader, self.num_steps = loader, num_steps

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.loader.batches(stop_step=self.num_steps):
            yield batch.images, batch.labels


class FaceModule(lightning.LightningModule):
    """Backbone and head; the head's centers are buffers, so checkpoints hold them too."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # the head updates its own rows
        self.backbone = mf.create_backbone("tiny", embedding_size=128, image_size=48)
        self.head = mf.PartialFC(
            num_classes=num_classes, dim=128, margin=mf.CosFace(0.2), scale=32, sample_rate=0.2
        )

    def training_step(self, batch: Pair, batch_idx: int) -> None:
        images, labels = batch
        optimizer = self.optimizers()
        loss = self.head(self.backbone(images), labels)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.head.step(lr=0.05 * optimizer.param_groups[0]["lr"])  # docs/heads.md
        self.log("loss", loss, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.backbone.parameters(), lr=0.05, momentum=0.9)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    num_steps = parser.parse_args().steps
    faces = SyntheticFaces(num_identities=1000, images_per_identity=20, image_size=48)
    loader = Loader(faces, batch_size=64, seed=0, augmentation=Augmentation())
    trainer = lightning.Trainer(
        max_steps=num_steps,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    data = DataLoader(Batches(loader, num_steps), batch_size=None)
    trainer.fit(FaceModule(faces.num_identities), data)
    print(f"loss {trainer.callback_metrics['loss'].item():.3f} after {trainer.global_step} steps")

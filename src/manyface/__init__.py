"""manyface: face-recognition embeddings trained on millions to hundreds of millions of identities.

import manyface as mf

head = mf.PartialFC(num_classes=10_000_000, dim=512, margin=mf.CosFace(0.4), sample_rate=0.1)
for images, labels in loader:
    loss = head(backbone(images), labels)
    loss.backward()
    backbone_optimizer.step(); head.step(lr)
"""

from manyface.backbones import create_backbone
from manyface.base.errors import ManyfaceError
from manyface.heads import FullFC, PartialFC
from manyface.margins import ArcFace, CombinedMargin, CosFace, Margin, NormFace

__version__ = "0.1.0"

__all__ = [
    "ArcFace",
    "CombinedMargin",
    "CosFace",
    "FullFC",
    "ManyfaceError",
    "Margin",
    "NormFace",
    "PartialFC",
    "create_backbone",
]

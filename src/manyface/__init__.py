"""manyface: face-recognition embeddings trained on millions to hundreds of millions of identities.

import manyface as mf

head = mf.PartialFC(num_classes=10_000_000, dim=512, margin=mf.CosFace(0.4), sample_rate=0.1)
for images, labels in loader:
    loss = head(backbone(images), labels)
    loss.backward()
    backbone_optimizer.step(); head.step(lr)

A name is imported when it is first used, torch with it: that takes seconds, which the command line
does not spend before it can answer Ctrl-C or print its help.
"""

TYPE_CHECKING = False  # importing it takes longer than all else here; type checkers know the name
if TYPE_CHECKING:
    from manyface.backbones import create_backbone
    from manyface.base.errors import ManyfaceError
    from manyface.heads import F2C, DynamicClassPool, FullFC, PartialFC, VirtualFC
    from manyface.margins import (
        AdaFace,
        ArcFace,
        CombinedMargin,
        CosFace,
        CurricularFace,
        InterclassFilter,
        MagFace,
        Margin,
        MVSoftmax,
        NegativeRule,
        NormFace,
        SphereFace,
    )
    from manyface.model import FaceModel, load

__version__ = "0.1.0"

__all__ = [
    "AdaFace",
    "ArcFace",
    "CombinedMargin",
    "CosFace",
    "CurricularFace",
    "DynamicClassPool",
    "F2C",
    "FaceModel",
    "FullFC",
    "InterclassFilter",
    "MVSoftmax",
    "MagFace",
    "ManyfaceError",
    "Margin",
    "NegativeRule",
    "NormFace",
    "PartialFC",
    "SphereFace",
    "VirtualFC",
    "create_backbone",
    "load",
]

_ROOM_OF = {
    "AdaFace": "margins",
    "ArcFace": "margins",
    "CombinedMargin": "margins",
    "CosFace": "margins",
    "CurricularFace": "margins",
    "DynamicClassPool": "heads",
    "F2C": "heads",
    "FaceModel": "model",
    "FullFC": "heads",
    "InterclassFilter": "margins",
    "MVSoftmax": "margins",
    "MagFace": "margins",
    "ManyfaceError": "base.errors",
    "Margin": "margins",
    "NegativeRule": "margins",
    "NormFace": "margins",
    "PartialFC": "heads",
    "SphereFace": "margins",
    "VirtualFC": "heads",
    "create_backbone": "backbones",
    "load": "model",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> object:
        if name not in _ROOM_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        room = import_module(f"{__name__}.{_ROOM_OF[name]}")
        globals()[name] = getattr(room, name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Trainings side by side, each in a process of its own (training.py says what is measured)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from manyface.backbones import create_backbone
from manyface.bench.process import Figures, figures_of
from manyface.bench.training import TrainingOptions
from manyface.config import Config
from manyface.train.devices import choose_device


@dataclass(frozen=True)
class TrainingJob:
    """A recipe to measure, under a name of its own in tables and files.

    Raises:
        ConfigError: no such backbone or device; the image size is not for the backbone.
    """

    name: str
    config: Config
    options: TrainingOptions

    def __post_init__(self) -> None:
        net = self.config.backbone
        size = self.config.data.image_size
        create_backbone(net.name, embedding_size=net.embedding_size, image_size=size, device="meta")
        choose_device(self.config.run.device)

    @property
    def words(self) -> tuple[str, str, str]:
        """Of its process."""
        return "train", self.config.to_toml(), json.dumps(asdict(self.options))

    @property
    def settings(self) -> Figures:
        """What speed hangs on."""
        chosen = self.config
        return {
            "backbone": chosen.backbone.name,
            "head": chosen.head.method,
            "sample_rate": chosen.head.sample_rate,
            "batch_size": chosen.train.batch_size,
            "accumulation": chosen.optimizer.accumulation,
            "image_size": chosen.data.image_size,
            "embedding_size": chosen.backbone.embedding_size,
            "device": chosen.run.device,
            "threads": chosen.run.threads,
            "channels_last": chosen.run.channels_last,
            "compile": chosen.run.compile,
            "fused": chosen.optimizer.fused,
            **asdict(self.options),
        }


def compare_trainings(
    jobs: Sequence[TrainingJob], *, report: Callable[[str, str], None]
) -> dict[str, Figures]:
    """Name -> `settings` and the figures of training.py, in the order in which they run."""
    return {
        job.name: {"settings": job.settings, **figures_of(job.name, job.words, report=report)}
        for job in jobs
    }

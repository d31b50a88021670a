"""What a recipe may say: one frozen record per TOML section, each key typed, bounded, described.

The descriptions are the documentation: `manyface config`, docs/config.md and the error messages
are made from them. A key that is not here is an error, and so is one that would be ignored (but
for what another head.method would read: load.py). Only `train/`, what measures recipes (`bench/`)
and the command line read these records; the library takes plain arguments.
"""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from manyface.config.head import WITHOUT_CENTERS, HeadConfig
from manyface.config.kinds import Section
from manyface.config.learning import BackboneConfig, OptimizerConfig, ScheduleConfig
from manyface.config.pool import F2C_KEYS, VIRTUAL_KEYS, PoolConfig
from manyface.config.render import render_toml
from manyface.config.running import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    RunConfig,
    TrainConfig,
)


class Config(Section):
    """A whole recipe. Every section and every key may be left out."""

    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    pool: PoolConfig = PoolConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        synthetic = self.data.is_synthetic
        if synthetic and self.data.people is not None:
            raise ValueError(
                "data.people names people of a real data set, but data.path is 'synthetic'; "
                "set data.path or take data.people out"
            )
        if synthetic and self.data.min_images_per_identity > 1:
            raise ValueError(
                f"data.min_images_per_identity is {self.data.min_images_per_identity}, but "
                "data.path is 'synthetic', where data.synthetic.images_per_identity and long_tail "
                "say how many each has; set data.path or take data.min_images_per_identity out"
            )
        if self.head.method not in WITHOUT_CENTERS and self.pool != PoolConfig():
            raise ValueError(
                f"[pool] is for head.method 'f2c' and 'virtual', but it is '{self.head.method}'; "
                "set head.method, or take [pool] out"
            )
        for key in F2C_KEYS if self.head.method == "virtual" else ():
            if getattr(self.pool, key) != PoolConfig.model_fields[key].default:
                raise ValueError(
                    f"pool.{key} is of head.method 'f2c', but it is 'virtual', which reads "
                    f"{', '.join(VIRTUAL_KEYS)} of [pool]; take it out"
                )
        if self.head.method in WITHOUT_CENTERS and any(s.head == "own" for s in self.data.sets):
            raise ValueError(
                f"data.sets: a set has head 'own', but head.method '{self.head.method}' has one "
                "pool for all people; set it to 'common', or head.method to 'full' or 'partial'"
            )
        if self.data.batches == "pairs":
            self._check_pairs()
        listed = self.evaluation.pairs not in (None, "synthetic")
        if not listed and self.evaluation.path is not None:
            raise ValueError(
                "evaluation.path is given without evaluation.pairs; set evaluation.pairs to the "
                "list of pairs, or take evaluation.path out"
            )
        return self

    def _check_pairs(self) -> None:
        """Batches of pairs are of class centers, and of one head."""
        if self.head.method in WITHOUT_CENTERS:
            raise ValueError(
                f"data.batches is 'pairs', but head.method '{self.head.method}' mixes its own; set "
                "pool.identity_share and take data.batches out"
            )
        if any(each.head == "own" for each in self.data.sets):
            raise ValueError(
                "data.batches is 'pairs', but a set of data.sets has head 'own', whose share of a "
                "batch is fixed; set it to 'common', or take data.batches out"
            )

    @property
    def run_directory(self) -> Path:
        """The folder of this run: config, events, checkpoints, result."""
        return Path(self.run.directory) / self.run.name

    def to_toml(self, *, described: bool = False) -> str:
        """The whole recipe as TOML that reads back equal; `described` adds what each key means."""
        return render_toml(self, described=described)

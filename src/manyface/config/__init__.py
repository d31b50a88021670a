"""Recipes: what they may say (`schema`), how they are read (`load`), shown (`render`) and refused.

A leaf: it describes and checks, imports nothing above `base`, and builds nothing.
"""

from manyface.config.head import HeadConfig
from manyface.config.learning import BackboneConfig, OptimizerConfig, ScheduleConfig
from manyface.config.load import load_config, parse_config
from manyface.config.render import render_page, toml_value
from manyface.config.running import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    RunConfig,
    SyntheticConfig,
    TrainConfig,
)
from manyface.config.schema import Config

__all__ = [
    "AugmentationConfig",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "HeadConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "SyntheticConfig",
    "TrainConfig",
    "load_config",
    "parse_config",
    "render_page",
    "toml_value",
]

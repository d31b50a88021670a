"""The sections of what is learned and how: backbone, optimizer, schedule; head.py, pool.py."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from manyface.config.kinds import (
    BelowOne,
    Count,
    CountOrOff,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    Text,
)


class BackboneConfig(Section):
    """The network from face to embedding."""

    name: Text = Field(
        "r50", description="r18 to r200, mbf, vit_t ...; the table is docs/backbones.md."
    )
    embedding_size: Count = Field(512, description="Length of the embedding.")
    dropout: BelowOne = Field(0.0, description="Dropout before the embedding layer.")
    stem_width: Count | None = Field(
        None, description="Channels of the first layer of a small net; left out, its name's own."
    )
    widths: tuple[Count, ...] | None = Field(
        None, strict=False, description="Channels of a small net's stages; its name's own."
    )
    depths: tuple[CountOrOff, ...] | None = Field(
        None, strict=False, description="Residual blocks of a small net's stages; its name's own."
    )
    activation: Literal["prelu", "relu"] | None = Field(
        None, description="Of a small net; left out, prelu. relu is faster on CPUs."
    )
    drop_path: BelowOne | None = Field(
        None, description="Stochastic depth of a vit; left out, its name's own."
    )
    mask_ratio: BelowOne | None = Field(
        None, description="Share of a vit's tokens hidden in training; left out, its name's own."
    )
    weights: Text | None = Field(
        None, description="File with weights to start from: .safetensors, .pt or .pth."
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute activations again in backward: less memory, slower.",
    )


class OptimizerConfig(Section):
    """How the backbone learns; the centers have their own settings in [head]."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="The optimizer of the backbone.")
    learning_rate: Positive = Field(
        0.02, description="Peak learning rate; the default suits sgd and updates of 128 images."
    )
    momentum: BelowOne = Field(0.9, description="Momentum of sgd.")
    nesterov: bool = Field(False, description="Nesterov's momentum, of sgd.")
    weight_decay: NotNegative = Field(5e-4, description="Weight decay.")
    clip_norm: NotNegative = Field(
        5.0, description="Largest norm of the backbone's gradient; 0 is off."
    )
    accumulation: Count = Field(
        1, description="Batches whose gradients are averaged into one update."
    )
    fused: bool = Field(
        True,
        description="Move the weights in one pass over memory (torch's fused optimizers); false: "
        "operation by operation. The same numbers but for rounding.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.name == "adamw" and (self.nesterov or self.momentum != 0.9):
            raise ValueError("momentum and nesterov belong to optimizer 'sgd', but name is 'adamw'")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class ScheduleConfig(Section):
    """How long, and how the learning rate runs: linear warm-up, then decay, step by step."""

    epochs: Positive | None = Field(
        None,
        description="Length in passes over the data; default 20 where steps is not given either.",
    )
    steps: Count | None = Field(None, description="Length in updates, instead of epochs.")
    warmup_epochs: NotNegative = Field(0.0, description="Length of the warm-up in epochs.")
    warmup_steps: CountOrOff = Field(0, description="Length of the warm-up in updates, instead.")
    decay: Literal["polynomial", "cosine", "multistep", "constant"] = Field(
        "polynomial", description="Shape of the decay after the warm-up."
    )
    milestones: tuple[Positive, ...] = Field(
        (),
        strict=False,
        description="Of multistep: where the learning rate falls, in epochs, or in updates where "
        "steps is given.",
    )
    gamma: PositiveFraction = Field(
        0.1, description="Of multistep: by what the learning rate is multiplied there."
    )
    power: Positive = Field(
        1.0, description="Exponent of the polynomial decay; 1 is a straight line."
    )
    final_fraction: Fraction = Field(0.0, description="Last learning rate as a share of the peak.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, dict) and "epochs" not in given and "steps" not in given:
            return {**given, "epochs": 20.0}
        return given

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"epochs ({self.epochs:g}) and steps ({self.steps}) are both given; expected one"
            )
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError("warmup_epochs and warmup_steps are both given; expected one")
        pairs = (
            (self.warmup_epochs, self.epochs, "epochs"),
            (self.warmup_steps, self.steps, "steps"),
        )
        for warmup, length, unit in pairs:
            if length is not None and warmup > length:
                raise ValueError(
                    f"warmup_{unit} ({warmup:g}) is longer than the training ({length:g} {unit})"
                )
        return self

    @model_validator(mode="after")
    def _possible_milestones(self) -> Self:
        if (self.decay == "multistep") != bool(self.milestones):
            raise ValueError("decay 'multistep' and milestones belong together; expected both")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        if self.milestones and self.milestones[-1] >= (self.steps or self.epochs or math.inf):
            raise ValueError(f"the milestone {self.milestones[-1]:g} is not before the end")
        if self.milestones and self.final_fraction:
            raise ValueError("final_fraction has no meaning with decay 'multistep'")
        return self

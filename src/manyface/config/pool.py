"""The section of the pool: of F2C, and of Virtual FC's anchors."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from manyface.config.kinds import (
    BelowOne,
    Count,
    Fraction,
    NotNegative,
    Section,
)

VIRTUAL_KEYS = ("slots", "ratio", "identity_share")  # of [pool], what virtual reads
POOL_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "official": {
        "identity_share": 2 / 3,
        "features": 2,
        "decay": 0.99,
        "decay_warmup": False,
        "rule": "sequential",
        "reduction": "sum",
        "count_empty": True,
    },
}


class PoolConfig(Section):
    """The pool of method f2c, its gallery net, the mix of its batches; anchors of virtual."""

    preset: Literal["default", "official"] = Field(
        "default",
        description="official: what the authors' code does, for keys that are left out.",
    )
    ratio: Fraction | None = Field(
        None,
        description="Slots of the pool, or anchors, as a share of the identities; default 0.1.",
    )
    slots: Count | None = Field(None, description="Slots of the pool, instead of ratio.")
    identity_share: Fraction = Field(
        1.0,
        description="Share of a batch's images that come as pairs of one identity; the rest are "
        "ordinary images.",
    )
    features: Literal[1, 2] = Field(1, description="Newest features kept per identity.")
    passes: Literal[1, 2] = Field(
        2, description="2: every image is probe and gallery once; 1: half of them probe."
    )
    decay: BelowOne = Field(0.9, description="Of the gallery net, a moving average of the net.")
    decay_warmup: bool = Field(True, description="Begin with a smaller decay.")
    gallery_norm: Literal["batch", "average", "copy"] = Field(
        "batch",
        description="Batch norm of the gallery net: of its own batch, or running statistics, "
        "averaged or copied from the net that learns.",
    )
    prefill: bool = Field(
        False,
        description="Fill the pool before the first step of a new run: one image of each of as "
        "many identities as there are slots goes through the gallery net.",
    )
    rule: Literal["hits_first", "sequential"] = Field(
        "hits_first",
        description="Use all of a batch that are in the pool before others make room, or label by "
        "label.",
    )
    reduction: Literal["mean", "sum"] = Field("mean", description="Of the passes' losses.")
    outlier_weight: NotNegative = Field(
        1.0, description="Factor of the loss of identities outside the pool."
    )
    hard_negatives: Count | None = Field(
        None,
        description="Rows of the pool that an identity outside is pushed from; left out, 0.0002 "
        "of the slots, 3 to 10.",
    )
    outlier_clip: Fraction = Field(0.0, description="Cosines up to here are not pushed down.")
    count_empty: bool = Field(
        False, description="Slots not filled yet count as negatives, with random rows."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = given.get("preset", "default")
        defaults = POOL_PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        if given.get("ratio") is None and given.get("slots") is None:
            defaults = {**defaults, "ratio": 0.1}
        return {**defaults, **given}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.ratio is not None and self.slots is not None:
            raise ValueError(
                f"ratio ({self.ratio:g}) and slots ({self.slots}) are both given; expected one"
            )
        if self.ratio == 0:
            raise ValueError("ratio is 0; expected a share of the identities above 0")
        return self


F2C_KEYS = tuple(key for key in PoolConfig.model_fields if key not in VIRTUAL_KEYS)

"""The section of the head, and which keys belong to which margin, rule, sampler or method."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from manyface.config.kinds import (
    BelowOne,
    Cosine,
    Count,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    Text,
)

MARGIN_DEFAULTS: dict[str, dict[str, float | str]] = {
    "normface": {},
    "cosface": {"m": 0.4},
    "arcface": {"m": 0.5, "gradient": "exact"},
    "combined": {"m1": 1.0, "m2": 0.0, "m3": 0.0, "gradient": "exact"},
    "sphereface": {"m": 4.0, "annealing": 0.0, "gradient": "exact"},
    "adaface": {"m": 0.4, "h": 0.333, "t_alpha": 0.01},
    "magface": {"l_a": 10.0, "u_a": 110.0, "l_m": 0.45, "u_m": 0.8, "lambda_g": 35.0},
}
RULE_DEFAULTS: dict[str, dict[str, float | str]] = {
    "none": {},
    "curricular": {"negatives_t_alpha": 0.01},
    "mv": {"negatives_t": 0.2, "negatives_weighting": "adaptive"},
    "interclass_filter": {"negatives_threshold": 0.4},
    "interclass_remove": {"negatives_threshold": 0.4},
}

MARGIN_SCHEDULE_DEFAULTS: dict[str, dict[str, float | str]] = {
    "constant": {},
    "linear": {"margin_start": 0.0, "margin_steps": 1000},
    "sphereface": {"annealing_base": 1000.0, "annealing_gamma": 0.12, "annealing_power": 1.0},
}
SCALE_SCHEDULE_DEFAULTS: dict[str, dict[str, float | str]] = {
    "constant": {},
    "linear": {"scale_start": 16.0, "scale_steps": 1000},
}
SAMPLER_DEFAULTS: dict[str, dict[str, float | str]] = {
    "uniform": {},
    "strata": {"strata": 8},
    "balanced": {"balance_power": 1.0},
    "random": {},
    "hard": {"hard_share": 0.5, "hard_neighbours": 10, "hard_refresh_steps": 1000},
}


def _keys(defaults: dict[str, dict[str, float | str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for keys in defaults.values() for key in keys))


# Parameters of any of them.
MARGIN_KEYS, RULE_KEYS = _keys(MARGIN_DEFAULTS), _keys(RULE_DEFAULTS)
MARGIN_SCHEDULE_KEYS = ("margin_schedule", *_keys(MARGIN_SCHEDULE_DEFAULTS))
SCALE_SCHEDULE_KEYS = _keys(SCALE_SCHEDULE_DEFAULTS)
SAMPLER_KEYS = ("sampler", *_keys(SAMPLER_DEFAULTS))  # of method partial
# Choices of [head], and the parameters of each.
OWNERS = {
    "sampler": SAMPLER_DEFAULTS,
    "margin": MARGIN_DEFAULTS,
    "margin_schedule": MARGIN_SCHEDULE_DEFAULTS,
    "negatives": RULE_DEFAULTS,
    "scale_schedule": SCALE_SCHEDULE_DEFAULTS,
}
WITH_CENTERS_ONLY = ("adaface", "magface")  # margins

WITHOUT_CENTERS = ("f2c", "virtual")  # methods without class centers
CENTER_KEYS = (  # of the others
    "sample_rate",
    "block",
    *SAMPLER_KEYS,
    "learning_rate",
    "optimizer",
    "momentum",
    "missed_steps",
    "row_wise_second_moment",
    "weight_decay",
    "dtype",
    "operands",
    "placement",
    "placement_folder",
    "weights",
)


class HeadConfig(Section):
    """The classification head: which class centers take part, and with which margin."""

    method: Literal["full", "partial", "f2c", "virtual"] = Field(
        "full",
        description="full: all centers in each step; partial: positives and a random sample of "
        "negatives; f2c: no centers, a pool of features ([pool]); virtual: anchors that identities "
        "share ([pool] says how many). Left out, a sample_rate makes it partial. f2c and virtual "
        "have no centers: what a recipe says of them has no effect then.",
    )
    sample_rate: Fraction = Field(
        1.0,
        description="Share of the centers in each step of the partial head (its default: 0.1); "
        "0 takes the positives only.",
    )
    block: Count | None = Field(
        None,
        description="Neighbouring rows that the partial head draws together, by sampler uniform "
        "and strata; left out, 1 for small samples and up to 64 for large ones.",
    )
    sampler: Literal["uniform", "strata", "balanced", "hard", "random"] = Field(
        "uniform",
        description="How the partial head draws negatives. strata: an equal share of each part of "
        "the table; balanced: classes with many images less often; hard: the nearest to the "
        "batch's, and others; random: without the batch's own classes first, for studies only: "
        "accuracy collapses.",
    )
    strata: Count | None = Field(
        None, description="Parts of the table, of sampler strata; default 8."
    )
    balance_power: Fraction | None = Field(
        None,
        description="Of sampler balanced: a class's weight is its number of images to the power of "
        "minus this; default 1.",
    )
    hard_share: Fraction | None = Field(
        None, description="Share of the negatives that sampler hard takes nearby; default 0.5."
    )
    hard_neighbours: Count | None = Field(
        None, description="Nearest classes kept for each class, of sampler hard; default 10."
    )
    hard_refresh_steps: Count | None = Field(
        None,
        description="Updates in which sampler hard finds everybody's nearest anew, some after each "
        "update; default 1000.",
    )
    margin: Literal[
        "normface", "cosface", "arcface", "combined", "sphereface", "adaface", "magface"
    ] = Field(
        "cosface",
        description="The margin; combined is cos(m1 theta + m2) - m3. adaface and magface look at "
        "the length of embeddings, and are of class centers only.",
    )
    m: NotNegative | None = Field(
        None,
        description="Margin of cosface and adaface (default 0.4), arcface (default 0.5, radians), "
        "sphereface (default 4, a factor on the angle).",
    )
    m1: Positive | None = Field(None, description="Factor on the angle, of combined; default 1.")
    m2: NotNegative | None = Field(
        None, description="Radians added to the angle, of combined; default 0."
    )
    m3: NotNegative | None = Field(
        None, description="Taken from the cosine, of combined; default 0."
    )
    gradient: Literal["exact", "straight_through"] | None = Field(
        None,
        description="Of arcface, combined and sphereface: the true derivative (default), or the "
        "margin taken as a constant.",
    )
    annealing: NotNegative | None = Field(
        None,
        description="Weight of the plain cosine in sphereface; default 0, with margin_schedule "
        "sphereface 5.",
    )
    h: Positive | None = Field(
        None, description="Concentration of adaface's image quality; default 0.333."
    )
    t_alpha: PositiveFraction | None = Field(
        None, description="Weight of a batch in adaface's running averages; default 0.01."
    )
    l_a: Positive | None = Field(None, description="Shortest length, of magface; default 10.")
    u_a: Positive | None = Field(None, description="Longest length, of magface; default 110.")
    l_m: NotNegative | None = Field(
        None, description="Margin of the shortest, of magface, in radians; default 0.45."
    )
    u_m: NotNegative | None = Field(
        None, description="Margin of the longest, of magface, in radians; default 0.8."
    )
    lambda_g: NotNegative | None = Field(
        None, description="Weight of magface's reward for length; default 35."
    )
    negatives: Literal["none", "curricular", "mv", "interclass_filter", "interclass_remove"] = (
        Field(
            "none",
            description="Rule for the cosines of other classes, of class centers only. Those above "
            "the target logit are weighted by how far training is (curricular) or raised by "
            "negatives_t (mv); those above a threshold count as 0 (interclass_filter) or not at "
            "all (interclass_remove).",
        )
    )
    negatives_t_alpha: PositiveFraction | None = Field(
        None, description="Weight of a batch in curricular's running average; default 0.01."
    )
    negatives_t: NotNegative | None = Field(
        None, description="By how much mv raises a cosine; default 0.2."
    )
    negatives_weighting: Literal["adaptive", "fixed"] | None = Field(
        None, description="Of mv: by t (c + 1) (default), or by t."
    )
    negatives_threshold: Cosine | None = Field(
        None, description="Of interclass_filter and interclass_remove; default 0.4."
    )
    label_smoothing: BelowOne = Field(
        0.0,
        description="Share of a label spread over all classes in a step, of class centers only.",
    )
    sub_centers: Count = Field(
        1,
        description="Centers per class, of which the nearest counts (Sub-center ArcFace; its paper "
        "takes 3); memory and work grow with it.",
    )
    scale: Positive = Field(64.0, description="Factor s on the cosines.")
    margin_schedule: Literal["constant", "linear", "sphereface"] = Field(
        "constant",
        description="Whether the margin changes with the updates, of class centers only. linear: m "
        "begins at margin_start and is reached after margin_steps; sphereface: annealing falls to "
        "its value as in the code of SphereFace.",
    )
    margin_start: NotNegative | None = Field(
        None, description="First m of a linear margin_schedule; default 0, of sphereface 1."
    )
    margin_steps: Count | None = Field(
        None, description="Updates of a linear margin_schedule; default 1000."
    )
    annealing_base: Positive | None = Field(
        None, description="First annealing of margin_schedule sphereface; default 1000."
    )
    annealing_gamma: NotNegative | None = Field(
        None,
        description="Of margin_schedule sphereface, which is base (1 + gamma step)^-power; default "
        "0.12.",
    )
    annealing_power: NotNegative | None = Field(
        None, description="Of margin_schedule sphereface; default 1."
    )
    scale_schedule: Literal["constant", "linear"] = Field(
        "constant",
        description="linear: the scale begins at scale_start and is reached after scale_steps; of "
        "class centers only.",
    )
    scale_start: Positive | None = Field(
        None, description="First scale of a linear scale_schedule; default 16."
    )
    scale_steps: Count | None = Field(
        None, description="Updates of a linear scale_schedule; default 1000."
    )
    learning_rate: Positive | None = Field(
        None,
        description="Peak learning rate of the centers, if any; left out, optimizer.learning_rate, "
        "which may be too much: docs/heads.md has a rule.",
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="The optimizer of the centers, if any."
    )
    momentum: BelowOne = Field(
        0.9, description="Momentum of the centers' sgd, if any; with 0 there is no memory for it."
    )
    missed_steps: Literal["frozen", "lazy-exact", "decay-only"] = Field(
        "frozen",
        description="What a step of sgd means for centers that take no part. frozen: nothing; "
        "lazy-exact: decay and momentum, as if all took part in each step; decay-only: decay.",
    )
    row_wise_second_moment: bool = Field(
        False, description="One second moment per center, of adamw: half of its memory."
    )
    weight_decay: NotNegative = Field(5e-4, description="Weight decay of the centers, if any.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Of centers and momentum; bfloat16 halves them and is rounded stochastically.",
    )
    operands: Literal["same", "bfloat16"] = Field(
        "same", description="What products with the centers multiply: their dtype, or bfloat16."
    )
    placement: Literal["device", "host", "file"] = Field(
        "device",
        description="Where centers and momentum lie: with the net, in the host's memory while a "
        "GPU computes, or in files of placement_folder, mapped into memory.",
    )
    placement_folder: Text | None = Field(
        None,
        description="Folder of the files, on a local, fast disk; made if missing. It holds nothing "
        "that lasts: checkpoints do.",
    )
    weights: Text | None = Field(
        None,
        description="Class centers to start from, momentum 0: a folder of insightface's files, one "
        "per rank (docs/howto/from-insightface.md), or one file, .safetensors with weight "
        "[identities, embedding_size].",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """Write the defaults that hang on another key, so that the resolved config says all."""
        if not isinstance(given, dict):
            return given
        filled = {"method": "partial" if "sample_rate" in given else "full", **given}
        if filled["method"] == "partial":
            filled.setdefault("sample_rate", 0.1)
        defaults: dict[str, Any] = {}
        for choice, of_choice in OWNERS.items():
            chosen = filled.get(choice, cls.model_fields[choice].default)
            defaults |= of_choice.get(chosen, {}) if isinstance(chosen, str) else {}
        if filled.get("margin") == "sphereface":
            schedule = filled.get("margin_schedule")
            own = {"linear": {"margin_start": 1.0}, "sphereface": {"annealing": 5.0}}
            defaults |= own.get(schedule, {}) if isinstance(schedule, str) else {}
        return {**defaults, **filled}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in CENTER_KEYS if self.method in WITHOUT_CENTERS else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} is of class centers, but method is '{self.method}', which has none; "
                    "take one of the two out"
                )
        if self.method != "partial" and self.sample_rate != 1:
            raise ValueError(
                f"sample_rate is {self.sample_rate:g}, but method is '{self.method}'; "
                "expected 1 or partial"
            )
        if self.method != "partial" and self.block is not None:
            raise ValueError(f"block is of method 'partial', but method is '{self.method}'")
        self._check_centers()
        if self.method != "partial" and self.sampler != "uniform":
            raise ValueError(
                f"sampler is '{self.sampler}', but method is '{self.method}'; expected uniform or "
                "partial"
            )
        if self.block is not None and self.sampler not in ("uniform", "strata"):
            raise ValueError(
                f"block is of sampler uniform and strata, but sampler is '{self.sampler}'; take "
                "one of the two out"
            )
        for choice, defaults in OWNERS.items():
            self._check_owners(choice, defaults)
        self._check_margin_schedule()
        if self.method in WITHOUT_CENTERS:
            self._check_without_centers()
        return self

    def _check_centers(self) -> None:
        """Refuse keys of another optimizer or placement of the centers than the chosen one."""
        owned = {"sgd": ("momentum", "missed_steps"), "adamw": ("row_wise_second_moment",)}
        for owner, keys in owned.items():
            for key in keys if owner != self.optimizer else ():
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"{key} belongs to optimizer '{owner}', but optimizer is "
                        f"'{self.optimizer}'; take one of the two out"
                    )
        if (self.placement == "file") != (self.placement_folder is not None):
            given = "missing" if self.placement_folder is None else "given"
            raise ValueError(
                f"placement is '{self.placement}' and placement_folder is {given}; expected "
                "placement 'file' and a folder on a local disk, or none"
            )

    def _check_owners(self, choice: str, defaults: dict[str, dict[str, float | str]]) -> None:
        """Refuse parameters of a margin or a rule that is not the chosen one."""
        chosen = getattr(self, choice)
        for key in _keys(defaults):
            if getattr(self, key) is not None and key not in defaults[chosen]:
                owners = " and ".join(name for name, keys in defaults.items() if key in keys)
                raise ValueError(f"{key} belongs to {choice} {owners}, but {choice} is '{chosen}'")

    def _check_margin_schedule(self) -> None:
        """Refuse a schedule of what the margin does not have."""
        changes = {"linear": "m", "sphereface": "annealing"}.get(self.margin_schedule)
        if changes is not None and changes not in MARGIN_DEFAULTS[self.margin]:
            having = [name for name, keys in MARGIN_DEFAULTS.items() if changes in keys]
            raise ValueError(
                f"margin_schedule '{self.margin_schedule}' changes {changes}, which margin "
                f"'{self.margin}' does not have; expected margin {' or '.join(having)}"
            )

    def _check_without_centers(self) -> None:
        """Refuse the parts of a loss that heads without class centers cannot train with yet."""
        given = {
            f"margin '{self.margin}'": self.margin in WITH_CENTERS_ONLY,
            f"negatives '{self.negatives}'": self.negatives != "none",
            f"label_smoothing {self.label_smoothing:g}": self.label_smoothing > 0,
            f"sub_centers {self.sub_centers}": self.sub_centers > 1,
            f"margin_schedule '{self.margin_schedule}'": self.margin_schedule != "constant",
            f"scale_schedule '{self.scale_schedule}'": self.scale_schedule != "constant",
        }
        for name, is_given in given.items():
            if is_given:
                raise ValueError(
                    f"{name} is not supported by method '{self.method}' yet; expected full or "
                    "partial, or a recipe without it"
                )

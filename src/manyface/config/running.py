"""The sections of a run around the learning: run, data, augmentation, loop, evaluation."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from manyface.config.kinds import (
    BelowOne,
    Count,
    CountOrOff,
    Fraction,
    NotNegative,
    Positive,
    Section,
    Seed,
    Text,
)


class RunConfig(Section):
    """Where the run lives and what it runs on."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[^/\\\x00-\x1f]*[^/\\\x00-\x1f.\s][^/\\\x00-\x1f]*$",
            json_schema_extra={"expected": "a folder name, without slashes"},
        ),
    ] = Field(
        "run",
        description="Name of the run, and of its folder. Default: the recipe's file name.",
    )
    directory: Text = Field("runs", description="Folder that holds the runs.")
    seed: Seed = Field(0, description="The one seed; every random draw is a named stream under it.")
    threads: CountOrOff = Field(
        0,
        description="CPU threads for the arithmetic; 0 takes all cores. Another number rounds "
        "otherwise, in bf16 by enough to be seen in the loss.",
    )
    device: Annotated[
        str,
        Field(
            pattern=r"^(auto|cpu|cuda(:\d+)?)$",
            json_schema_extra={"expected": "'auto', 'cpu', 'cuda' or 'cuda:N'"},
        ),
    ] = Field("auto", description="Where to compute; auto takes a GPU if there is one.")
    timeout_seconds: NotNegative = Field(
        0.0,
        description="How long a rank waits for another before the run ends; 0 is 120 on CPUs and "
        "600 on GPUs.",
    )
    compile: bool = Field(False, description="Compile the backbone with torch.compile.")
    channels_last: bool = Field(
        True,
        description="Convolutional nets work on images whose channels lie together, mostly faster; "
        "false: on images as they come. The same numbers but for rounding.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the backbone; auto takes bf16 where the device has instructions "
        "for it, and the config of the run says which it took.",
    )


class SyntheticConfig(Section):
    """The people of `data.path = "synthetic"`: rendered as they are needed, never stored."""

    num_identities: Count = Field(10_000, description="People to train on.")
    images_per_identity: Count = Field(
        10, description="Photos of each person, or with long_tail their mean."
    )
    long_tail: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0,
        description="0: everybody has as many photos. Above: few have many and many have one: at "
        "100, of 10 a person, the head tenth has 61 % of the photos and 28 % of the people have a "
        "single one (docs/synthetic.md). People of synthetic pairs have as many each always.",
    )
    seed: Seed = Field(0, description="Which people; another seed gives unrelated ones.")
    difficulty: Text = Field(
        "faces-1", description="Preset of how far photos of one person differ (pose, light, noise)."
    )


class NoiseConfig(Section):
    """Labels made wrong on purpose, to study what a head makes of them; all 0: none are."""

    split: Fraction = Field(
        0.0, description="Share of people whose photos are dealt to several labels (conflict)."
    )
    parts: Annotated[int, Field(ge=2)] = Field(
        3, description="Labels of each of them; fewer where there are fewer photos."
    )
    flip: Fraction = Field(
        0.0, description="Share of photos that get the label of somebody else, drawn at random."
    )

    @property
    def is_any(self) -> bool:
        """Whether a label changes."""
        return self.split > 0 or self.flip > 0


class SetConfig(Section):
    """One of several sets, as `[[data.sets]]`, once for each; docs/data.md, "Several sets"."""

    path: Text = Field(description="Where its photos are, as data.path.")
    keep: Text | None = Field(None, description="As data.keep, of this set.")
    people: Text | None = Field(None, description="As data.people, of this set.")
    min_images_per_identity: Count = Field(1, description="As data.min_images_per_identity.")
    weight: Positive | None = Field(
        None,
        description="Its share of every batch, relative to the other sets' weights; all sets have "
        "one, or none. Left out, its share of the photos.",
    )
    head: Literal["common", "own"] = Field(
        "common",
        description="common: its people are classes beside those of the other common sets, as if "
        "they were one set. own: a head of its own, which compares them with each other alone; for "
        "sets that may show the same people.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.path == "synthetic":
            raise ValueError("path is 'synthetic', which can only be data.path, without sets")
        return self


class DataConfig(Section):
    """The photos to train on."""

    path: Text = Field(
        "synthetic",
        description='"synthetic", or where the photos are: a folder of persons, the same inside a '
        ".tar, a list file, RecordIO (train.rec), LMDB, tar shards (also their address), Parquet; "
        "recognised by content.",
    )
    keep: Text | None = Field(
        None,
        description="Keep-list of `manyface data check` or `clean`: photos that are left out "
        "(docs/howto/data.md).",
    )
    people: Text | None = Field(
        None,
        description="File that lists the identities to use: beside the data, inside the tar, or "
        "any path. Left out, all are used.",
    )
    image_size: Annotated[int, Field(ge=16, le=1024)] = Field(
        112, description="Side in pixels to which photos are brought."
    )
    min_images_per_identity: Count = Field(1, description="People with fewer photos are left out.")
    threads: CountOrOff = Field(
        0,
        description="Threads that decode photos, of each rank; 0 shares half of the cores out to "
        "the ranks of a machine, the rest is for training.",
    )
    max_bad_share: Fraction = Field(
        0.01,
        description="Unreadable photos are counted and replaced up to this share; above it, an "
        "error. Of a small set 10 may be unreadable, but no more than a quarter. 0 allows none. "
        "Photos of listed pairs are never replaced: one that is unreadable is an error.",
    )
    batches: Literal["images", "pairs"] = Field(
        "images",
        description="Of methods with class centers: batches of images, or of pairs of one "
        "identity, all people equally often, as the identity loader of f2c makes them.",
    )
    shuffle: Literal["full", "block"] = Field(
        "full",
        description="How photos are put in order: full takes any next; block reads those that lie "
        "together in a file soon after each other, for slow disks and network storage "
        "(docs/data.md).",
    )
    block_size: Count = Field(1024, description="Neighbouring photos in a block of shuffle block.")
    shuffle_window: Count = Field(
        64, description="Blocks, from all over the data, whose photos are mixed in shuffle block."
    )
    sets: tuple[SetConfig, ...] = Field(
        (), strict=False, description="Several sets instead of path, each with its weight."
    )
    synthetic: SyntheticConfig = Field(
        SyntheticConfig(), description='The people of path = "synthetic".'
    )
    noise: NoiseConfig = Field(
        NoiseConfig(), description="Labels made wrong on purpose; the seed is the run's."
    )

    @property
    def is_synthetic(self) -> bool:
        """Whether the photos are rendered."""
        return self.path == "synthetic" and not self.sets

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key in ("path", "people", "min_images_per_identity") if self.sets else ():
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} is given beside sets; give it to each of the [[data.sets]] instead"
                )
        if self.sets and self.noise.is_any:
            raise ValueError("noise is of one set, but sets are given; take one of them out")
        given = sum(each.weight is not None for each in self.sets)
        if 0 < given < len(self.sets):
            raise ValueError(
                f"sets: {given} of {len(self.sets)} have a weight; give all of them one, or none"
            )
        return self


class AugmentationConfig(Section):
    """Random changes to the training photos; 0 turns one off. Drawn from (seed, position) alone."""

    flip: Fraction = Field(0.5, description="Chance of a mirror image.")
    shift: NotNegative = Field(
        0.0,
        description="Largest shift along each axis: pixels from 1 on, below 1 a share of the side.",
    )
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="Largest turn to either side, in degrees."
    )
    scale: NotNegative = Field(0.0, description="Largest change of size: 0.1 is 1 / 1.1 to 1.1.")
    brightness: Fraction = Field(
        0.0, description="Largest relative change of all values: 0.2 is a factor of 0.8 to 1.2."
    )
    contrast: Fraction = Field(0.0, description="The same, of the distance from the mean grey.")
    saturation: Fraction = Field(
        0.0, description="The same, of each pixel's distance from its grey."
    )
    grey: Fraction = Field(0.0, description="Chance of a grey image.")
    blur: Fraction = Field(0.0, description="Chance of a blurred image.")
    low_resolution: Fraction = Field(
        0.0, description="Chance of an image that was shrunk and enlarged again."
    )
    erase: Fraction = Field(0.0, description="Chance that a rectangle is filled with one colour.")


class TrainConfig(Section):
    """The loop: batch, log lines, checkpoints."""

    batch_size: Annotated[int, Field(ge=2)] = Field(
        128, description="Photos in a batch; the nets' batch norm needs 2."
    )
    log_every: Count = Field(20, description="Updates between two lines of the log.")
    ema: BelowOne = Field(
        0.0, description="Decay of an averaged copy of the backbone, used for evaluation; 0 is off."
    )
    checkpoint_every: CountOrOff = Field(
        0, description="Updates between checkpoints; 0 goes by time."
    )
    checkpoint_minutes: NotNegative = Field(
        10.0, description="Minutes between checkpoints; 0 is off. The end always writes one."
    )
    staging_gib: NotNegative | None = Field(
        None,
        description="Memory of each process for a copy of what a checkpoint holds, so that it is "
        "written beside training; left out, up to 0.4 of what is free. What is larger, and all "
        "with 0, is written while training waits.",
    )
    compare_every: CountOrOff = Field(
        100,
        description="Updates after which several ranks compare their copies of the nets and their "
        "optimizers; one that differs ends the run. 0 is off.",
    )
    keep: Count = Field(2, description="Newest checkpoints to keep; the best is kept besides.")
    tensorboard: bool = Field(False, description="Write TensorBoard files (extra: tensorboard).")


class EvaluationConfig(Section):
    """Verification on people that are not trained on, during the run and at its end."""

    pairs: Text | None = Field(
        None,
        description='"synthetic" (people never trained on), an insightface verification set '
        "(lfw.bin) or an LFW pairs list: in or beside the data, or any path. Left out: synthetic "
        "pairs for synthetic data, else none.",
    )
    path: Text | None = Field(
        None, description="Photos of listed pairs; left out, data.path. A .bin has its own."
    )
    every_epochs: NotNegative | None = Field(
        None,
        description="Epochs between evaluations; 0: only at the end. Default 1, unless every_steps "
        "is given. One that is due less than half an interval before the end is left to the end.",
    )
    every_steps: CountOrOff | None = Field(
        None, description="Updates between evaluations, instead of every_epochs; 0 is off."
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        10, description="Folds of the threshold search, where the list names none."
    )
    flip: bool = Field(True, description="Add the embedding of the mirror image.")
    num_pairs: Annotated[int, Field(ge=20)] = Field(
        6000, description="Synthetic pairs, half of them same."
    )
    num_identities: Annotated[int, Field(ge=2)] = Field(
        1000, description="Held-out synthetic people that the pairs are drawn from."
    )
    fars: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (1e-1, 1e-2, 1e-3), strict=False, description="False accept rates at which TAR is reported."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, dict) and "every_epochs" not in given and "every_steps" not in given:
            return {**given, "every_epochs": 1.0}
        return given

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.every_epochs is not None and self.every_steps is not None:
            raise ValueError("every_epochs and every_steps are both given; expected one")
        if self.pairs == "synthetic" and self.path is not None:
            raise ValueError("path is for listed pairs, but pairs is 'synthetic'; take one out")
        return self

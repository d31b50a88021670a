"""A configuration of insightface's arcface_torch -> the keys of a recipe, and what is left over.

`config.xxx = ...` files (`recognition/arcface_torch/configs/*.py`) are read by `python_config`,
over the `base.py` that lies beside them, as their `get_config` does. This module knows the names of
recipe keys, and no recipe: who calls it renders and checks the table.

What their trainer does with each key was read in train_v2.py, partial_fc_v2.py, losses.py and
lr_scheduler.py.
"""

import shlex
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from manyface.base.errors import ConfigError
from manyface.compat.python_config import Value, is_number, read_assignments

# What their base.py says, where a configuration comes without it.
BASE: dict[str, Value] = {
    "margin_list": [1.0, 0.5, 0.0],
    "network": "r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "fp16": False,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "verbose": 2000,
    "frequent": 10,
    "gradient_acc": 1,
    "seed": 2048,
    "output": None,
}
# Their network -> our backbone.name and options. The larger ViTs compute activations again.
_AGAIN: dict[str, Value] = {"activation_checkpointing": True}
NETWORKS: dict[str, tuple[str, dict[str, Value]]] = {
    **{name: (name, {}) for name in ("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large")},
    **{name: (name, {}) for name in ("vit_t", "vit_s")},
    "vit_t_dp005_mask0": ("vit_t", {"drop_path": 0.05, "mask_ratio": 0.0}),
    "vit_s_dp005_mask_0": ("vit_s", {"drop_path": 0.05, "mask_ratio": 0.0}),
    "vit_b": ("vit_b", _AGAIN),
    "vit_b_dp005_mask_005": ("vit_b", {"drop_path": 0.05, "mask_ratio": 0.05, **_AGAIN}),
    "vit_l_dp005_mask_005": ("vit_l", {"drop_path": 0.05, "mask_ratio": 0.05, **_AGAIN}),
}
_WANDB = (
    *("using_wandb", "wandb_key", "wandb_entity", "wandb_project", "wandb_log_all"),
    *("wandb_resume", "suffix_run_name", "save_artifacts", "notes"),
)
# Keys without a counterpart; those that are off or empty are passed over.
_NO_PLACE = {
    "resume": "manyface train --resume goes on with a run",
    "save_all_states": "a checkpoint here always holds all that a resume needs",
    "num_workers": "they are processes per GPU; data.threads counts threads, 0: half the cores",
    "dali": "photos are decoded by the CPU",
    "dali_aug": "its shrinking, blur, hue, saturation and grey: choose what you want of "
    "[augmentation] (low_resolution, blur, saturation, grey)",
    **dict.fromkeys(_WANDB, "there is no logger for W&B; train.tensorboard = true writes curves"),
}

Table = dict[str, dict[str, Any]]


@dataclass
class Conversion:
    """Section -> key -> value, and three lists for people."""

    table: Table = field(default_factory=dict)
    not_understood: list[str] = field(default_factory=list)
    not_mapped: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


def convert(path: Path, *, ranks: int = 1) -> Conversion:
    """The configuration at `path`, which trained on `ranks` GPUs.

    Raises:
        ConfigError: it cannot be read, assigns no `config`, or a value is of the wrong kind.
    """
    found = Conversion()
    own = _read(path, found)
    base_path = path.parent / "base.py"
    if base_path.is_file() and base_path.name != path.name:
        base = {**BASE, **_read(base_path, found)}
    else:
        base = BASE
    _Mapping(path, own, base, ranks, found).run()
    return found


def _read(path: Path, found: Conversion) -> dict[str, Value]:
    read = read_assignments(path)
    config = read.names.get("config")
    if not isinstance(config, dict):
        raise ConfigError(
            f"{path}: it assigns no `config`; expected a configuration of insightface's "
            "arcface_torch: config = edict(), config.network = ..."
        )
    found.not_understood += [f"{path.name}, {skipped}" for skipped in read.skipped]
    return config


class _Mapping:
    """Takes their values one by one, puts ours, and notes what is not the same."""

    def __init__(
        self,
        path: Path,
        own: dict[str, Value],
        base: dict[str, Value],
        ranks: int,
        found: Conversion,
    ) -> None:
        self.path, self.own, self.ranks, self.found = path, own, ranks, found
        self.values = base | own
        self.seen: set[str] = set()

    def run(self) -> None:
        """Map everything."""
        self.run_section()
        self.data()
        self.backbone()
        self.head()
        self.optimizer()
        self.schedule()
        self.loop()
        self.rest()

    def run_section(self) -> None:
        """`output`, `seed`, `fp16`."""
        output = PurePosixPath(self.text("output") or self.path.stem)
        self.put("run.name", output.name)
        if output.parent.name:
            self.put("run.directory", str(output.parent))
        self.put("run.seed", self.integer("seed"))
        fp16 = self.flag("fp16")
        self.put("run.precision", "auto" if fp16 else "fp32")
        if fp16:
            self.differ(
                "fp16: the backbone computes in bfloat16 where there is hardware for it, "
                "not in float16, so there is no GradScaler"
            )

    def data(self) -> None:
        """`rec`, `num_classes`, `num_image`."""
        rec, classes = self.text("rec"), self.integer("num_classes")
        if rec is None:
            self.lose("rec", "it is not given; set data.path")
        elif rec == "synthetic":
            self.synthetic(classes)
        else:
            self.put("data.path", rec)
            if classes is not None:
                self.differ(f"num_classes: theirs had {classes}; here the data says how many")

    def synthetic(self, classes: int | None) -> None:
        """Their synthetic data is one grey noise image with label 0; ours are faces."""
        images = self.integer("num_image")
        self.put("data.path", "synthetic")
        self.put("data.synthetic.num_identities", classes)
        if classes and images is not None:
            self.put("data.synthetic.images_per_identity", max(1, images // classes))
        self.differ(
            "synthetic data here are rendered faces, a whole number of each person; "
            "theirs repeats one picture of noise"
        )

    def backbone(self) -> None:
        """`network`, `embedding_size`."""
        network = self.text("network") or ""
        name, options = NETWORKS.get(network, (network, {}))
        self.put("backbone.name", name)
        self.put("backbone.embedding_size", self.integer("embedding_size"))
        for key, value in options.items():
            self.put(f"backbone.{key}", value)
        if network not in NETWORKS:
            self.lose(
                "network",
                f"there is no {network!r} here; set backbone.name to one of docs/backbones.md",
            )

    def head(self) -> None:
        """`margin_list`, `interclass_filtering_threshold`, `sample_rate`."""
        self.margin(*self.margins())
        threshold = self.number("interclass_filtering_threshold") or 0.0
        if 0 < threshold < 1:
            self.put("head.negatives", "interclass_filter")
            self.put("head.negatives_threshold", threshold)
        rate = self.number("sample_rate")
        if rate is None or rate >= 1:
            self.put("head.method", "full")
        else:
            self.put("head.method", "partial")
            self.put("head.sample_rate", rate)
            self.differ(
                "sample_rate: theirs draws classes one by one, here large samples are in "
                "blocks of neighbouring rows; head.block = 1 is theirs"
            )

    def margins(self) -> list[float]:
        """m1, m2, m3."""
        given = self.take("margin_list")
        if not (isinstance(given, list) and len(given) == 3 and all(map(is_number, given))):
            raise self.wrong("margin_list", given, "three numbers")
        return given

    def margin(self, m1: float, m2: float, m3: float) -> None:
        """As losses.py reads them: with m3 > 0 it is CosFace and m1, m2 have no effect."""
        if m3 > 0:
            self.put("head.margin", "cosface")
            self.put("head.m", m3)
            if (m1, m2) != (1, 0):
                self.differ(
                    f"margin_list: where m3 > 0 theirs has no use for m1 = {m1:g} and "
                    f"m2 = {m2:g}; head.margin 'combined' would use all three"
                )
        elif (m1, m3) != (1, 0):
            self.combined(m1, m2, m3)
        elif m2 == 0:
            self.put("head.margin", "normface")
        else:
            self.put("head.margin", "arcface")
            self.put("head.m", m2)
            self.put("head.gradient", "straight_through")
            self.differ(
                "margin_list: ArcFace trains with the gradient of the plain cosine, as "
                "theirs ('exact' is the true one), but goes on falling where "
                "theta + m passes pi"
            )

    def combined(self, m1: float, m2: float, m3: float) -> None:
        """What theirs refuses in the first step."""
        self.put("head.margin", "combined")
        for name, value in (("m1", m1), ("m2", m2), ("m3", m3)):
            self.put(f"head.{name}", value)
        self.differ(
            "margin_list: theirs stops with an error in the first step for these three; "
            "the recipe trains cos(m1 theta + m2) - m3"
        )

    def optimizer(self) -> None:
        """`optimizer`, `lr`, `momentum`, `weight_decay`, `gradient_acc`: of backbone and head."""
        name = self.text("optimizer")
        decay, accumulation = self.number("weight_decay"), self.integer("gradient_acc")
        self.put("optimizer.name", name)
        self.put("optimizer.learning_rate", self.number("lr"))
        self.put("optimizer.weight_decay", decay)
        self.put("optimizer.accumulation", accumulation)
        self.put("head.optimizer", name)
        self.put("head.weight_decay", decay)
        self.differ(
            "weight_decay: not of norm weights, biases and PReLU slopes here; theirs decays all"
        )
        if (accumulation or 1) > 1:
            self.differ(
                "gradient_acc: gradients are averaged here; theirs adds them up and clips "
                f"the sum: for sgd as a learning rate {accumulation} times as high"
            )
        self.centers(name)

    def centers(self, name: str | None) -> None:
        """How class centers outside of the sample move; momentum."""
        partial = self.found.table["head"]["method"] == "partial"
        momentum = self.number("momentum")
        if name == "sgd" and momentum not in (0.9, None):
            self.differ(
                f"momentum: theirs is 0.9 always and passes over {momentum:g}; so is the recipe's"
            )
        if name == "sgd" and partial:
            self.put("head.missed_steps", "lazy-exact")
            self.differ(
                "head.missed_steps = 'lazy-exact': decay and momentum move all centers "
                "in every step, as theirs; 'frozen', what a recipe does that says "
                "nothing, leaves those outside of the sample, and costs less"
            )
        elif partial:
            self.differ(
                "optimizer: AdamW moves the centers of the sample alone here; theirs all, "
                "with gradient 0"
            )

    def schedule(self) -> None:
        """`num_epoch`, `warmup_epoch`: linear warm-up, then straight to 0, as here."""
        epochs, warmup = self.number("num_epoch"), max(0.0, self.number("warmup_epoch") or 0.0)
        self.put("schedule.epochs", epochs)
        self.put("schedule.warmup_epochs", warmup)
        if epochs is None:
            self.lose("num_epoch", "it is not given; the recipe trains for 20 (schedule.epochs)")
        if warmup:
            self.differ(
                "warmup_epoch: their first step runs at the full rate, and the warm-up "
                "begins with the second; here with the first"
            )
        if steps := self.num_steps(epochs):
            self.differ(
                "num_image: an epoch is what the data holds here; theirs trained for "
                f"{steps} updates (schedule.steps = {steps}, without epochs)"
            )

    def num_steps(self, epochs: float | None) -> int | None:
        """Updates of their trainer, by the number of images that is written down."""
        images, batch = self.integer("num_image"), self.global_batch()
        if images is None or epochs is None or batch < 1:
            return None
        return int(images // batch * epochs) // max(1, self.integer("gradient_acc") or 1)

    def loop(self) -> None:
        """`batch_size`, `frequent`, `verbose`, `val_targets`."""
        per_gpu, batch = self.integer("batch_size"), self.global_batch()
        self.put("train.batch_size", batch)
        many = f"{self.ranks} GPU" + ("s" if self.ranks > 1 else "")
        self.differ(
            f"batch_size: {per_gpu} of each GPU, so {batch} on {many} (--ranks); lr is for "
            "that batch and is not scaled"
        )
        self.put("train.log_every", self.integer("frequent"))
        every = max(1, (self.integer("verbose") or 1) // (self.integer("gradient_acc") or 1))
        targets = self.targets()
        if not targets:
            return
        self.put("evaluation.every_steps", every)
        if self.text("rec") == "synthetic":
            self.lose("val_targets", "synthetic data are evaluated on synthetic pairs")
            return
        self.put("evaluation.pairs", f"{targets[0]}.bin")  # it is looked for in data.path
        if len(targets) > 1:
            folder = self.text("rec") or "REC"
            others = " ".join(shlex.quote(f"{folder}/{name}.bin") for name in targets[1:])
            self.lose(
                "val_targets",
                f"a run evaluates on one set, {targets[0]}.bin; on others afterwards: "
                f"manyface evaluate RUN --on {others}",
            )

    def targets(self) -> list[str]:
        """`val_targets`, the names of verification sets."""
        value = self.take("val_targets")
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise self.wrong("val_targets", value, "a list of names")
        return [str(each) for each in value]

    def rest(self) -> None:
        """Keys without a place here, and keys that nobody knows."""
        reasons: dict[str, list[str]] = {}
        for key, value in self.own.items():
            if key in _NO_PLACE and value:
                reasons.setdefault(_NO_PLACE[key], []).append(key)
            elif key not in self.seen and key not in _NO_PLACE:
                reasons.setdefault("their trainer has no such key", []).append(key)
        for reason, keys in reasons.items():
            self.lose(", ".join(keys), reason)

    def global_batch(self) -> int:
        return (self.integer("batch_size") or 0) * self.ranks

    def put(self, dotted: str, value: Any) -> None:
        """Write a key of the recipe; None leaves its default."""
        section, _, key = dotted.rpartition(".")
        if value is not None:
            self.found.table.setdefault(section, {})[key] = value

    def differ(self, text: str) -> None:
        self.found.differs.append(text)

    def lose(self, key: str, why: str) -> None:
        self.found.not_mapped.append(f"{key}: {why}")

    def take(self, key: str) -> Value:
        self.seen.add(key)
        return self.values.get(key)

    def number(self, key: str) -> float | None:
        value: float | None = self.take(key)
        if value is not None and not is_number(value):
            raise self.wrong(key, value, "a number")
        return value

    def integer(self, key: str) -> int | None:
        value = self.number(key)
        if isinstance(value, float):
            raise self.wrong(key, value, "a whole number")
        return value

    def text(self, key: str) -> str | None:
        if not isinstance(value := self.take(key), str | None):
            raise self.wrong(key, value, "a text")
        return value

    def flag(self, key: str) -> bool:
        if not isinstance(value := self.take(key), bool):
            raise self.wrong(key, value, "True or False")
        return value

    def wrong(self, key: str, value: Value, expected: str) -> ConfigError:
        got = repr(value) if isinstance(value, str | float | int | None) else type(value).__name__
        return ConfigError(f"{self.path}: config.{key}: got {got[:60]}, expected {expected}")

"""What to change in a recipe: where it does not fit, where sampling does not pay, or would."""

from collections.abc import Callable

from manyface.base.errors import ManyfaceError
from manyface.config import Config
from manyface.plan.prediction import Prediction
from manyface.plan.small import changed

Replan = Callable[[Config], Prediction]
_LITTLE = 0.1  # of a step: not worth an approximation
_MUCH = 0.5


def advice(config: Config, found: Prediction, replan: Replan) -> list[str]:
    """Sentences; `replan` gives the plan of a changed recipe (its bytes alone are read)."""
    if not found.fits:
        return _to_fit(config, found, replan)
    return [*_about_files(found), *_about_sampling(config, found)]


def _about_files(found: Prediction) -> list[str]:
    left = found.available - found.bytes.peak
    if found.bytes.files <= left:
        return []
    return [
        f"the files need {_gib(found.bytes.files)}, memory has room for {_gib(left)} of them: a "
        "step waits for the disk too, which its time does not count"
    ]


def _about_sampling(config: Config, found: Prediction) -> list[str]:
    seconds = found.seconds
    if found.head_of_all is not None:
        more = found.head_of_all - seconds.head - seconds.lists
        if more < _LITTLE * seconds.step:
            return [
                f"sampling does not pay: with all classes in every step (head.method=full) a step "
                f"is {100 * more / seconds.step:.0f} % longer"
            ]
    if config.head.method == "full" and seconds.head > _MUCH * seconds.step:
        shorter = 1 - (seconds.step - 0.9 * seconds.head) / seconds.step
        return [
            f"the head takes {100 * seconds.head / seconds.step:.0f} % of a step: "
            f"head.sample_rate=0.1 makes it {100 * shorter:.0f} % shorter"
        ]
    return []


def _changes(config: Config) -> list[tuple[str, Config]]:
    """Single changes that take less memory, the least harm first."""
    half = max(2, config.train.batch_size // 4 * 2)
    changes = []
    if config.head.method in ("full", "partial"):
        sgd = config.head.optimizer == "sgd"
        bf16 = changed(config, "head", dtype="bfloat16")
        changes.append(("head.dtype=bfloat16", bf16))
        if sgd:
            both = changed(bf16, "head", momentum=0.0)
            changes.append(("head.dtype=bfloat16 and head.momentum=0", both))
        place = {"placement": "file", "placement_folder": "centers"}
        changes.append(
            ("head.placement=file with a head.placement_folder", changed(config, "head", **place))
        )
        changes.append(("head.method=f2c", changed(config, "head", method="f2c")))
    if not config.backbone.activation_checkpointing:
        less = changed(config, "backbone", activation_checkpointing=True)
        changes.append(("backbone.activation_checkpointing=true", less))
    batch = changed(config, "train", batch_size=half)
    return [*changes, (f"train.batch_size={half}", batch)]


def _to_fit(config: Config, found: Prediction, replan: Replan) -> list[str]:
    """Which single change makes room, with the bytes it then takes; or that none does."""
    said = []
    for words, other in _changes(config):
        try:
            there = replan(other)
        except ManyfaceError:
            continue
        if there.fits:
            said.append(f"{words} needs {_needs(there)}")
    if said:
        return ["it fits with one of these: " + "; ".join(said)]
    ranks = -(-found.bytes.peak // found.available) * found.ranks
    return [f"no single change makes it fit; shard it over more ranks (some {ranks}), or take F2C"]


def _needs(found: Prediction) -> str:
    of_disk = f" and {_gib(found.bytes.files)} of the disk" if found.bytes.files else ""
    return _gib(found.bytes.peak) + of_disk


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"

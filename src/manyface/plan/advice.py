"""What to change in a recipe: where it does not fit, where sampling does not pay, or would."""

from collections.abc import Callable, Iterator

from manyface.base.errors import ManyfaceError
from manyface.config import Config
from manyface.config.head import CENTER_KEYS, HeadConfig
from manyface.plan.measuring import changed
from manyface.plan.prediction import Prediction
from manyface.train.checks import recipe_warnings

Replan = Callable[[Config], Prediction]
Fewest = Callable[[Config], int | None]
_LITTLE = 0.1  # of a step: not worth an approximation
_MUCH = 0.5
_MEASURED = 0.98  # of the memory there is: what was measured is not exact


def advice(
    config: Config, found: Prediction, replan: Replan, *, fewest: Fewest | None = None
) -> list[str]:
    """Sentences; `replan` gives the plan of a changed recipe (its bytes alone are read).

    `fewest`: number of GPUs on which a recipe fits, where ranks share the rows.
    """
    always = [*_about_saving(config, found), *recipe_warnings(config)]
    if not found.fits:
        return [*_to_fit(config, found, replan, fewest), *always]
    return [*_about_files(found), *_about_sampling(config, found), *always]


def _about_saving(config: Config, found: Prediction) -> list[str]:
    """Where training waits for checkpoints, or is slower at one than it is told to be."""
    saving, minutes = found.saving, config.train.checkpoint_minutes
    if saving is None:
        return []
    said = []
    if not saving.is_staged:
        said.append(
            f"a rank's checkpoint is {_gib(saving.of_rank)}, host memory has {_gib(saving.budget)} "
            f"for it: training waits {saving.pause:,.0f} s for each one"
        )
    if not config.train.checkpoint_every and 0 < 60 * minutes < saving.seconds:
        said.append(
            f"a checkpoint is written for {saving.seconds / 60:,.0f} minutes: "
            f"train.checkpoint_minutes={minutes:g} is shorter"
        )
    return said


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


def _changes(config: Config, found: Prediction) -> list[tuple[str, Config]]:
    """Single changes that take less memory, the least harm first; a smaller batch is another."""
    changes = _of_centers(config, found) if config.head.method in ("full", "partial") else []
    if not config.backbone.activation_checkpointing:
        less = changed(config, "backbone", activation_checkpointing=True)
        changes.append(("backbone.activation_checkpointing=true", less))
    return [(words, other) for words, other in changes if _is_possible(other)]


def _is_possible(config: Config) -> bool:
    """Whether it could be written as a recipe: not all that one head has, another one has too."""
    try:
        Config.model_validate(config.model_dump())
    except ValueError:
        return False
    return True


def _of_centers(config: Config, found: Prediction) -> list[tuple[str, Config]]:
    changes = _of_numbers(config)
    if config.head.placement == "device" and found.host is not None:
        changes.append(("head.placement=host", changed(config, "head", placement="host")))
    if config.head.placement != "file":
        files = changed(config, "head", placement="file", placement_folder="centers")
        changes.append(("head.placement=file with a head.placement_folder", files))
    rate = 0.1 * config.head.sample_rate
    fewer = changed(config, "head", method="partial", sample_rate=rate)
    changes.append((f"head.sample_rate={rate:g}", fewer))
    return [*changes, ("head.method=f2c", _as_pool(config))]


def _as_pool(config: Config) -> Config:
    """As `--set head.method=f2c` makes it: what the recipe says of class centers has no effect."""
    defaults = HeadConfig.model_validate({}).model_dump(include={*CENTER_KEYS})
    return changed(config, "head", **{**defaults, "method": "f2c"})


def _of_numbers(config: Config) -> list[tuple[str, Config]]:
    """Smaller numbers, and fewer of them, each change on top of those before."""
    head, changes, words = config.head, [], []
    if head.dtype != "bfloat16":
        config, words = changed(config, "head", dtype="bfloat16"), ["head.dtype=bfloat16"]
        changes.append((words[0], config))
    if head.optimizer == "sgd" and head.momentum > 0:
        config = changed(config, "head", momentum=0.0)
        changes.append((" and ".join([*words, "head.momentum=0"]), config))
    return changes


def _to_fit(config: Config, found: Prediction, replan: Replan, fewest: Fewest | None) -> list[str]:
    """Which single change makes room, with the bytes it then takes; or what is in the way."""
    changes = _changes(config, found)
    said = [f"{words} needs {_needs(there)}" for words, there in _fitting(changes, replan)]
    if batch := _batch_that_fits(config, found, replan):
        said.append(batch)
    if fewest is not None:
        said += _more_gpus(config, found, changes, fewest)
    if said:
        return ["it would fit with any one of these: " + "; ".join(said)]
    return [f"no single change makes it fit: {_in_the_way(found)}"]


def _more_gpus(
    config: Config, found: Prediction, changes: list[tuple[str, Config]], fewest: Fewest
) -> list[str]:
    """How many are enough, and how many with the change that saves most of them."""
    alone = fewest(config)
    said = [] if alone is None else [f"--gpus {alone}"]
    numbers = [(fewest(other), f" with {words}") for words, other in changes]
    known = [(each, words) for each, words in numbers if each is not None and each > found.ranks]
    best, words = min(known, default=(None, ""), key=lambda pair: pair[0])
    if best is not None and (alone is None or best < alone):
        said.append(f"--gpus {best}{words}")
    return said


def _fitting(changes: list[tuple[str, Config]], replan: Replan) -> Iterator[tuple[str, Prediction]]:
    for words, other in changes:
        try:
            there = replan(other)
        except ManyfaceError:
            continue
        if there.fits:
            yield words, there


def _batch_that_fits(config: Config, found: Prediction, replan: Replan) -> str | None:
    """The largest even one by the line through this one and half of it, or the half."""
    batch, least = config.train.batch_size, 4 if config.head.method == "f2c" else 2
    half = max(least, batch // 4 * 2)
    try:
        peak = replan(changed(config, "train", batch_size=half)).bytes.peak
    except ManyfaceError:
        return None
    each = max(1.0, (found.bytes.peak - peak) / max(1, batch - half))
    largest = int(batch - (found.bytes.peak - _MEASURED * found.available) / each) // 2 * 2
    sizes = [size for size in (largest, half) if least <= size < batch]
    tried = [
        (f"train.batch_size={size}", changed(config, "train", batch_size=size)) for size in sizes
    ]
    words, there = next(_fitting(tried, replan), ("", found))
    return f"{words} needs {_needs(there)}" if words else None


def _in_the_way(found: Prediction) -> str:
    if found.bytes.peak > found.available:
        name, size = found.bytes.largest()
        return f"the largest part is {name}, {_gib(size)}"
    if found.host is not None and not found.fits_host:
        name, size = found.host.largest()
        return f"the largest part in host memory is {name}, {_gib(size)}"
    free = _gib(found.disk or 0)
    return (
        f"its files need {_gib(found.bytes.files)}, the disk has {free}; "
        "choose a head.placement_folder on another disk"
    )


def _needs(found: Prediction) -> str:
    of_disk = f" and {_gib(found.bytes.files)} of the disk" if found.bytes.files else ""
    return _gib(found.bytes.peak) + of_disk


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"

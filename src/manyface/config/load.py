"""Recipe file + `--set` overrides -> a checked Config.

An override is `section.key=value`; the value is read as TOML, and what is no TOML is a text, so
that `--set data.path=/my faces` needs no quotes within quotes. An empty value takes the key out of
the recipe. An override also takes out the keys it is an alternative to (`schedule.steps` the
recipe's `schedule.epochs`, another `head.margin` the old margin's parameters): the last word wins.

So any recipe is one for any `head.method`: what it says of class centers has no effect where the
method has none, nor has its [pool] where an override asks for a method without one. The same on the
command line contradicts itself, and is refused.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import ValidationError

from manyface.base.errors import ConfigError
from manyface.config.head import (
    CENTER_KEYS,
    MARGIN_KEYS,
    MARGIN_SCHEDULE_KEYS,
    RULE_KEYS,
    SAMPLER_KEYS,
    SCALE_SCHEDULE_KEYS,
    WITHOUT_CENTERS,
)
from manyface.config.messages import describe_errors, unknown_key
from manyface.config.pool import F2C_KEYS
from manyface.config.render import all_keys, list_sections
from manyface.config.schema import Config

Table = dict[str, Any]

ALTERNATIVES = {
    "schedule.epochs": ("schedule.steps",),
    "schedule.steps": ("schedule.epochs",),
    "schedule.warmup_epochs": ("schedule.warmup_steps",),
    "schedule.warmup_steps": ("schedule.warmup_epochs",),
    "evaluation.every_epochs": ("evaluation.every_steps",),
    "evaluation.every_steps": ("evaluation.every_epochs",),
    "pool.slots": ("pool.ratio",),
    "pool.ratio": ("pool.slots",),
    "head.sample_rate": ("head.method",),
    "head.method": ("head.block", "head.sample_rate", *(f"head.{key}" for key in SAMPLER_KEYS)),
    "head.sampler": ("head.block", *(f"head.{key}" for key in SAMPLER_KEYS[1:])),
    "head.optimizer": ("head.momentum", "head.missed_steps", "head.row_wise_second_moment"),
    "head.placement": ("head.placement_folder",),
    "head.margin": tuple(f"head.{key}" for key in MARGIN_KEYS + MARGIN_SCHEDULE_KEYS),
    "head.margin_schedule": tuple(f"head.{key}" for key in MARGIN_SCHEDULE_KEYS[1:]),
    "head.scale_schedule": tuple(f"head.{key}" for key in SCALE_SCHEDULE_KEYS),
    "head.negatives": tuple(f"head.{key}" for key in RULE_KEYS),
}
OF_CENTERS = tuple(f"head.{key}" for key in CENTER_KEYS)
OF_F2C = tuple(f"pool.{key}" for key in F2C_KEYS)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The recipe at `path` with `overrides`; its name is the file's where it gives none."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a recipe: expected TOML text in UTF-8") from None
    except IsADirectoryError:
        inside = path / "config.toml"
        hint = f"; did you mean {inside}?" if inside.is_file() else ""
        raise ConfigError(f"{path}: is a folder; expected a recipe, a .toml file{hint}") from None
    except OSError as error:
        hint = "; `manyface config > recipe.toml` writes one" if not path.exists() else ""
        raise ConfigError(f"{path}: cannot read the recipe: {error.strerror}{hint}") from None
    return parse_config(text, overrides, source=str(path), name=path.stem)


def parse_config(
    text: str, overrides: Sequence[str] = (), *, source: str = "recipe", name: str | None = None
) -> Config:
    """The recipe in `text` with `overrides`; `source` stands in the messages."""
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # a number of 5,000 digits too, which the library lets through
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not valid TOML: brackets within brackets") from None
    if name is not None and isinstance(table.setdefault("run", {}), dict):
        table["run"].setdefault("name", name)
    apply_overrides(table, overrides)
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        lines = describe_errors(error, Config)
        raise ConfigError("\n".join(_placed(line, overrides, source) for line in lines)) from None


def _placed(line: str, overrides: Sequence[str], source: str) -> str:
    """A message behind what is to blame: the override of the key it begins with, or the recipe."""
    key = re.split(r"[^\w.]", line, maxsplit=1)[0]
    overridden = {override.partition("=")[0].strip() for override in overrides}
    return f"--set {line}" if key in overridden else f"{source}: {line}"


def apply_overrides(table: Table, overrides: Sequence[str]) -> None:
    """Write `overrides` into the parsed recipe `table`, in place."""
    parsed = dict(_parse_override(override) for override in overrides)
    for dotted, value in parsed.items():
        rivals = [rival for rival in _rivals(dotted, value) if rival not in parsed]
        if rivals and value is not None and _peek(table, dotted) != value:
            for rival in rivals:
                _put(table, rival, None)
    for unread in _unread(table, parsed):
        _put(table, unread, None)
    for dotted, value in parsed.items():
        _put(table, dotted, value)


def _rivals(dotted: str, value: Any) -> tuple[str, ...]:
    """Keys that an override is an alternative to."""
    reads_both = (dotted, value) == ("head.method", "partial")  # it has a head.sample_rate
    return () if reads_both else ALTERNATIVES.get(dotted, ())


def _unread(table: Table, overrides: Table) -> tuple[str, ...]:
    """Keys and sections of the recipe `table` that the chosen head.method does not read."""
    method = overrides.get("head.method", _peek(table, "head.method"))
    if method in WITHOUT_CENTERS:
        return OF_CENTERS + (OF_F2C if method == "virtual" else ())
    # A [pool] whose recipe does not say for what is a mistake, and stays one.
    chosen = not overrides.keys().isdisjoint(("head.method", "head.sample_rate"))
    return ("pool",) if chosen else ()


def _parse_override(override: str) -> tuple[str, Any]:
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    if not equals or not re.fullmatch(r"\w+(\.\w+)+", dotted, re.ASCII):
        raise ConfigError(f"--set {override}: expected section.key=value")
    if dotted.rpartition(".")[0] in list_sections(Config) or dotted in list_sections(Config):
        raise ConfigError(f"--set {override}: a list of tables; write it in the recipe")
    accepts_text = {key: _accepts_text(info.annotation) for key, info, _ in all_keys(Config)}
    if dotted not in accepts_text:
        raise ConfigError(f"--set {override}: {unknown_key(dotted, Config)}")
    try:
        override.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"--set {dotted}: the value is not UTF-8 text: {text!a}") from None
    if not text:
        return dotted, None
    return dotted, _parse_value(text, wants_text=accepts_text[dotted])


def _parse_value(text: str, *, wants_text: bool) -> Any:
    """TOML where it parses; else, or where a text is wanted and no quotes are there, the text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = table["value"]
    return text if len(table) > 1 or (wants_text and not isinstance(value, str)) else value


def _accepts_text(annotation: Any) -> bool:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return any(kind is str or str in get_args(kind)[:1] for kind in kinds)


def _peek(table: Table, dotted: str) -> Any:
    """The value that the recipe `table` gives a key of a section, or its default."""
    section, _, key = dotted.partition(".")
    inner = table.get(section)
    given = inner if isinstance(inner, dict) else {}
    if dotted == "head.method" and "sample_rate" in given:
        return given.get(key, "partial")
    if dotted == "head.sample_rate":  # stating even the default asks for the partial head
        return given.get(key)
    return given.get(key, getattr(getattr(Config(), section), key))


def _put(table: Table, dotted: str, value: Any) -> None:
    """Set a key, or take it out where `value` is None; a section that is no table is left alone."""
    section, _, key = dotted.partition(".")
    if "." in dotted:
        inner = table.setdefault(section, {})
        if isinstance(inner, dict):
            _put(inner, key, value)
    elif value is None:
        table.pop(dotted, None)
    else:
        table[dotted] = value

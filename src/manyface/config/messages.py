"""One clear line for each thing that is wrong with a recipe: key, value, expected, nearest key."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from manyface.config.render import all_keys, expectation, list_sections, toml_value, walk_sections


def describe_errors(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """The lines for `error`, which validating a `model` raised."""
    return [_line(item, model) for item in error.errors(include_url=False)]


def unknown_key(dotted: str, model: type[BaseModel]) -> str:
    """The line for a key that no section has."""
    section, _, name = dotted.rpartition(".")
    sections = dict(walk_sections(model))
    keys = [key for key, _, _ in all_keys(model)]
    if section in sections:
        siblings = [key for key in keys if key.rpartition(".")[0] == section]
        tables = [key for key in sections if key and key.rpartition(".")[0] == section]
        names = {key.rpartition(".")[2]: key for key in [*tables, *siblings]}
        close = get_close_matches(name, names, n=1, cutoff=0.6)
        elsewhere = [key for key in keys if key.rpartition(".")[2] == name]
        near = [names[close[0]]] if close else elsewhere
        known = f"the {'keys' if section else 'sections'} here are {', '.join(names)}"
    else:
        parent = get_close_matches(section, [key for key in sections if key], n=1, cutoff=0.6)
        near = [f"{one}.{name}" for one in parent if f"{one}.{name}" in keys]
        near = near or get_close_matches(dotted, keys, n=1, cutoff=0.75)
        known = f"the sections are {', '.join(key for key in sections if key)}"
    return f"{dotted}: unknown key; " + (f"did you mean {' or '.join(near)}?" if near else known)


def _line(item: Any, model: type[BaseModel]) -> str:
    dotted = ".".join(str(part) for part in item["loc"] if not isinstance(part, int))
    if item["type"] == "missing":
        return f"{dotted}: missing, and it has no default"
    if item["type"] == "extra_forbidden":
        return unknown_key(dotted, model)
    if item["type"] == "value_error":
        return f"{dotted}.{item['ctx']['error']}" if dotted else str(item["ctx"]["error"])
    if dotted in dict(walk_sections(model)):
        title = f"[[{dotted}]]" if dotted in list_sections(model) else f"[{dotted}]"
        return f"{dotted}: got {_shown(item['input'])}, expected a section: {title}"
    schemas = {key: schema for key, _, schema in all_keys(model)}
    return f"{dotted}: got {_shown(item['input'])}, expected {expectation(schemas[dotted])}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    text = toml_value(value)
    return text if len(text) <= 60 else text[:57] + "..."

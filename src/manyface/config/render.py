"""A config as TOML text, and the page that documents every key. Reads the records, knows no key."""

import json
from collections.abc import Iterator
from functools import cache
from textwrap import wrap
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

PAGE_HEAD = """# The recipe: every section and key

Written from `manyface.config` by `python -m manyface.config`; a test keeps it current. A recipe is
a TOML file; each key may be left out, and `--set section.key=value` on the command line wins over
the file. The resolved recipe of a run lies beside it as `config.toml` and is itself a recipe.
"""


def walk_sections(
    model: type[BaseModel], prefix: str = ""
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each table of a recipe as (dotted name, its record), the root ("") first."""
    yield prefix, model
    for name, info in model.model_fields.items():
        if section := _section(info):
            yield from walk_sections(section, f"{prefix}.{name}" if prefix else name)


def list_sections(model: type[BaseModel]) -> set[str]:
    """Dotted names of the sections that are lists of tables."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, section in walk_sections(model)
        for name, info in section.model_fields.items()
        if is_list(info)
    }


@cache
def all_keys(model: type[BaseModel]) -> tuple[tuple[str, FieldInfo, dict[str, Any]], ...]:
    """Each key of a recipe that is no table: (dotted name, field, its JSON schema)."""
    found = []
    for prefix, section in walk_sections(model):
        properties = section.model_json_schema()["properties"]
        for name, info in section.model_fields.items():
            if not _section(info):
                found.append((f"{prefix}.{name}" if prefix else name, info, properties[name]))
    return tuple(found)


def expectation(schema: dict[str, Any]) -> str:
    """What a key accepts, in words, from its JSON schema."""
    if "anyOf" in schema:
        return expectation(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "expected" in schema:
        return str(schema["expected"])
    if "enum" in schema:
        return "one of " + ", ".join(repr(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return "a list, each " + expectation(schema["items"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "a text",
    }
    return words.get(schema.get("type", ""), "another value") + _bounds(schema)


def render_toml(config: BaseModel, *, described: bool = False) -> str:
    """TOML of every key that has a value, one table per section."""
    blocks = [
        "\n".join(_table(title, record, described)) for title, record in _records(config) if title
    ]
    return "\n\n".join(blocks) + "\n"


def render_page(model: type[BaseModel]) -> str:
    """docs/config.md: a table of keys for each section."""
    rows: dict[str, list[str]] = {}
    for dotted, info, schema in all_keys(model):
        section, _, key = dotted.rpartition(".")
        has_default = info.default is not None and not info.is_required()
        default = f"`{toml_value(info.default)}`" if has_default else ""
        cells = (f"`{key}`", expectation(schema), default, str(info.description))
        rows.setdefault(section, []).append(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        )
    documents = {name: (section.__doc__ or "").strip() for name, section in walk_sections(model)}
    lists = list_sections(model)
    parts = [
        f"## {f'[[{section}]]' if section in lists else f'[{section}]'}\n{documents[section]}\n\n"
        "| key | accepts | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(lines)
        for section, lines in rows.items()
    ]
    return PAGE_HEAD + "\n" + "\n\n".join(parts) + "\n"


def toml_value(value: object) -> str:
    """One value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _section(info: FieldInfo) -> type[BaseModel] | None:
    kind = info.annotation
    if get_origin(kind) is tuple:  # a list of tables
        kind = get_args(kind)[0]
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def is_list(info: FieldInfo) -> bool:
    """Whether a section is a list of tables."""
    return get_origin(info.annotation) is tuple and _section(info) is not None


def _records(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel]]:
    """Each table with its title, "[name]" or "[[name]]" in a list; the root without one."""
    yield f"[{prefix}]" if prefix else "", config
    for name, info in type(config).model_fields.items():
        value, dotted = getattr(config, name), f"{prefix}.{name}" if prefix else name
        if is_list(info):
            yield from ((f"[[{dotted}]]", each) for each in value)
        elif isinstance(value, BaseModel):
            yield from _records(value, dotted)


def _table(title: str, record: BaseModel, described: bool) -> Iterator[str]:
    if described:
        yield f"# {(record.__doc__ or '').strip()}"
    yield title
    for key, info in type(record).model_fields.items():
        value = getattr(record, key)
        if described and is_list(info) and not value:
            yield f"# {info.description}"
            yield f"# [{title[:-1]}.{key}]]"
        if _section(info):
            continue
        if described:
            yield from wrap(info.description or "", 98, initial_indent="# ", subsequent_indent="# ")
        if value is not None:
            yield f"{key} = {toml_value(value)}"
        elif described:
            yield f"# {key} ="


def _bounds(schema: dict[str, Any]) -> str:
    """The interval of a number: " in [0, 1)", " above 0", " of at least 1", or nothing."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    left = "[" if "minimum" in schema else "("
    right = "]" if "maximum" in schema else ")"
    if low is not None and high is not None:
        return f" in {left}{low:g}, {high:g}{right}"
    if low is not None:
        return f" of at least {low:g}" if "minimum" in schema else f" above {low:g}"
    return ""

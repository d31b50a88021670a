"""Assignments of a Python configuration, read from its syntax and never run.

Understood: `config = edict()`, `config.lr = 0.1`, `config["lr"] = 0.1`, literals, tuples, lists,
dicts, names and attributes that are known already, and + - * / // % ** of numbers. Everything else
is passed over and listed with its line; what it assigns is unknown from there on, so that no old
value of the file stands in for it.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyface.base.errors import ConfigError

MAX_BYTES = 2**18
_MAX_BASE, _MAX_EXPONENT = 10**6, 64  # of **
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.FunctionDef, ast.ClassDef)

Value = Any  # None, bool, int, float, str, and lists, tuples and dicts (keys are str) of them


@dataclass(frozen=True)
class Skipped:
    """A statement that was passed over: its line from 1, how it begins, why."""

    line: int
    text: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}: {self.reason}"


@dataclass
class Assignments:
    """What a file assigns, name -> value, and what was passed over."""

    names: dict[str, Value] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


class _NotUnderstoodError(Exception):
    """Its text is the reason."""


def read_assignments(path: Path) -> Assignments:
    """The assignments of the Python file at `path`.

    Raises:
        ConfigError: no such file, larger than `MAX_BYTES`, no text, or no Python 3.
    """
    source = _read_text(path)
    found = Assignments()
    reader, lines = _Reader(found.names), re.split(r"\r\n|\r|\n", source)
    for statement in _parse(source, path).body:
        try:
            reader.run(statement)
        except (_NotUnderstoodError, RecursionError) as error:
            reader.forget_all(statement)
            reason = str(error) if isinstance(error, _NotUnderstoodError) else "nested too deeply"
            text = _printable(lines[statement.lineno - 1])
            found.skipped.append(Skipped(statement.lineno, text, reason))
    return found


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: no configuration: it has more than {MAX_BYTES >> 10} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no configuration: expected Python text in UTF-8") from None


def _parse(source: str, path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):  # of their syntax, such as "\d"
            return ast.parse(source)
    except SyntaxError as error:
        place = f"line {error.lineno}: " if error.lineno else ""
        raise ConfigError(f"{path}: {place}no Python 3: {error.msg}") from None
    except ValueError:  # a null byte
        raise ConfigError(f"{path}: no configuration: expected Python text") from None
    except (RecursionError, MemoryError):
        raise ConfigError(f"{path}: no configuration: nested too deeply") from None


class _Reader:
    """Runs statements on `names`; raises _NotUnderstoodError before it changes anything."""

    def __init__(self, names: dict[str, Value]) -> None:
        self.names = names
        self._makers = {"dict"}  # functions that make an empty configuration

    def run(self, node: ast.stmt) -> None:
        """Take in one statement."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.Assign):
            value = self._value(node.value)
            for target in node.targets:
                self._assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._assign(node.target, self._value(node.value))
        elif isinstance(node, ast.AugAssign):
            left, right = self._value(node.target), self._value(node.value)
            self._assign(node.target, _calculate(node.op, left, right))
        elif isinstance(node, ast.ImportFrom) and node.module == "easydict":
            self._makers |= {alias.asname or alias.name for alias in node.names}
        elif not isinstance(node, ast.Pass):
            raise _NotUnderstoodError(_why_not(node))

    def forget_all(self, node: ast.stmt) -> None:
        """Whatever `node` may have assigned is unknown."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.alias):
                self.names.pop(inner.asname or inner.name, None)
            elif isinstance(getattr(inner, "ctx", None), ast.Store | ast.Del):
                holder, key = self._find(inner)
                if holder is not None:
                    holder.pop(key, None)

    def _assign(self, target: ast.expr, value: Value) -> None:
        holder, key = self._find(target)
        if holder is None:
            raise _NotUnderstoodError("assigns to what is not known")
        holder[key] = value

    def _find(self, target: ast.AST) -> tuple[dict[str, Value] | None, str]:
        """The dict that a target lies in, and its key there."""
        if isinstance(target, ast.Name):
            return self.names, target.id
        if not isinstance(target, ast.Attribute | ast.Subscript):
            return None, ""
        try:
            holder, key = self._value(target.value), self._key(target)
        except _NotUnderstoodError:
            return None, ""
        return (holder, key) if isinstance(holder, dict) and isinstance(key, str) else (None, "")

    def _key(self, node: ast.Attribute | ast.Subscript) -> Value:
        return node.attr if isinstance(node, ast.Attribute) else self._value(node.slice)

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Constant):
            return _checked(node.value)
        if isinstance(node, ast.Tuple | ast.List):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            return dict(self._item(key, value) for key, value in _pairs(node))
        if isinstance(node, ast.Name):
            return self._known(self.names, node.id)
        if isinstance(node, ast.Attribute | ast.Subscript):
            return self._known(self._value(node.value), self._key(node))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return _calculate(ast.Sub(), 0, self._value(node.operand))
        if isinstance(node, ast.BinOp):
            return _calculate(node.op, self._value(node.left), self._value(node.right))
        if isinstance(node, ast.Call):
            return self._made(node)
        raise _NotUnderstoodError("is computed, and nothing is run")

    def _item(self, key: ast.expr | None, value: ast.expr) -> tuple[str, Value]:
        name = None if key is None else self._value(key)
        if not isinstance(name, str):
            raise _NotUnderstoodError("has a key that is no text")
        return name, self._value(value)

    def _known(self, holder: Value, key: Value) -> Value:
        try:
            return holder[key]
        except (KeyError, IndexError, TypeError):
            raise _NotUnderstoodError("reads what is not known") from None

    def _made(self, node: ast.Call) -> dict[str, Value]:
        """`edict()`, `edict({...})`, `edict(lr=0.1)`."""
        if not (isinstance(node.func, ast.Name) and node.func.id in self._makers):
            raise _NotUnderstoodError("calls a function, and nothing is run")
        made: dict[str, Value] = {}
        for given in map(self._value, node.args):
            if not isinstance(given, dict):
                raise _NotUnderstoodError("is made of something else than a dict")
            made |= given
        for keyword in node.keywords:
            if keyword.arg is None:
                raise _NotUnderstoodError("unpacks with **")
            made[keyword.arg] = self._value(keyword.value)
        return made


def _pairs(node: ast.Dict) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    return zip(node.keys, node.values, strict=True)


def _why_not(node: ast.stmt) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "an import is not followed"
    if isinstance(node, _COMPOUND):
        return "what stands inside is not read"
    return "is no assignment"


def _calculate(kind: ast.operator, left: Value, right: Value) -> Value:
    if type(kind) not in _OPERATORS or not (is_number(left) and is_number(right)):
        raise _NotUnderstoodError("is computed of something else than numbers")
    if isinstance(kind, ast.Pow) and (abs(left) > _MAX_BASE or abs(right) > _MAX_EXPONENT):
        raise _NotUnderstoodError("is a power too large")
    try:
        return _checked(_OPERATORS[type(kind)](left, right))
    except ArithmeticError as error:
        raise _NotUnderstoodError(f"cannot be computed: {error}") from None


def is_number(value: Value) -> bool:
    """Whether it is an int or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(value: Value) -> Value:
    """A plain value, numbers as TOML can say them."""
    if value is None or isinstance(value, bool) or (isinstance(value, str) and _is_utf8(value)):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _NotUnderstoodError("is no text and no finite number of ordinary size")


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _printable(line: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in line.strip())
    return text if len(text) <= 60 else text[:57] + "..."

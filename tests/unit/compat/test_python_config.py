"""Assignments are read, nothing is run, and whatever else a file holds ends in one clear line."""

from pathlib import Path
from typing import Any

import pytest

from manyface.base.errors import ConfigError
from manyface.compat.python_config import MAX_BYTES, Assignments, read_assignments


def read(folder: Path, text: str | bytes) -> Assignments:
    path = folder / "config.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_assignments(path)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1", 1),
        ("-2.5e-4", -2.5e-4),
        ("True", True),
        ("None", None),
        ("'a' 'b'", "ab"),
        ("(1.0, 0.5, 0)", [1.0, 0.5, 0]),
        ("['lfw', \"cfp_fp\"]", ["lfw", "cfp_fp"]),
        ("30 * 10000", 300000),
        ("known // 10 + 7 % 4 - 2 ** 3 / 4", 3.0),
        ("some.inner['lr']", 0.1),
        ("some.steps[1]", 9),
        ("{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("edict(a=1)", {"a": 1}),
        ("dict({'a': 1}, b=2)", {"a": 1, "b": 2}),
    ],
)
def test_what_is_understood(tmp_path: Path, text: str, expected: Any) -> None:
    before = (
        "from easydict import EasyDict as edict\n'''a text'''\nknown = 20\nsome = edict()\n"
        "some.inner = edict()\nsome.inner.lr = 0.1\nsome.steps = (4, 9)\n"
    )
    found = read(tmp_path, f"{before}value = {text}\n")
    assert found.skipped == []
    assert found.names["value"] == expected
    assert type(found.names["value"]) is type(expected)


def test_assignments_of_other_forms(tmp_path: Path) -> None:
    text = "a = b = 3\nc: int = 4\na += 1\nd = {}\nd['x'] = a\nd['x'] *= 2\npass\n"
    assert read(tmp_path, text).names == {"a": 4, "b": 3, "c": 4, "d": {"x": 8}}


@pytest.mark.parametrize(
    "text, reason",
    [
        ("x = open('/etc/passwd').read()", "calls a function"),
        ("x = __import__('os').system('touch run')", "calls a function"),
        ("x = unknown", "not known"),
        ("x = known.lr", "not known"),
        ("x = [y for y in (1, 2)]", "nothing is run"),
        ("x = lambda: 1", "nothing is run"),
        ("x = f'{known}'", "nothing is run"),
        ("x = b'bytes'", "no text"),
        ("x = 1e999", "no finite number"),
        ("x = 2 ** 64", "no finite number"),
        ("x = '\\ud800'", "no text"),
        ("x = 10 ** 10 ** 10", "too large"),
        ("x = 'a' * 10 ** 9", "than numbers"),
        ("x = [0] * 10 ** 9", "than numbers"),
        ("x = 1 << 70", "than numbers"),
        ("x = 1 / 0", "cannot be computed"),
        ("x = 0.5 % 0", "cannot be computed"),
        ("x = 2.5 ** 5000", "too large"),
        ("x = (-8) ** 0.5", "no text"),
        ("x = {1: 2}", "no text"),
        ("x = {**{}}", "no text"),
        ("x = dict(**{})", "unpacks"),
        ("x = dict([(1, 2)])", "something else than a dict"),
        ("x, y = 1, 2", "not known"),
        ("known.lr = 1", "not known"),
        ("print('hello')", "no assignment"),
        ("import os", "import"),
        ("from configs.base import x", "import"),
        ("if known:\n    x = 2", "inside"),
        ("for x in (1, 2):\n    pass", "inside"),
        ("del x", "no assignment"),
        ("x = " + "-" * 990 + "1", "nested too deeply"),
    ],
)
def test_everything_else_is_passed_over(tmp_path: Path, text: str, reason: str) -> None:
    found = read(tmp_path, f"known = 1\nx = 'old'\n\n{text}\n")
    (skipped,) = found.skipped
    assert skipped.line == 4
    assert reason in skipped.reason
    assert str(skipped).startswith(f"line 4: {text.splitlines()[0][:57]}")
    if not text.startswith(("known.lr =", "print", "import")):
        assert "x" not in found.names  # its old value does not stand in for the new one
    assert list(tmp_path.iterdir()) == [tmp_path / "config.py"]


def test_a_line_is_shown_without_control_characters(tmp_path: Path) -> None:
    (skipped,) = read(tmp_path, "x = f('\x1b[31m')\r\n").skipped
    assert skipped.text == "x = f(' [31m')"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x80\x04\x95binary", "UTF-8"),
        (b"x = 1\0", "expected Python text|null bytes"),
        (b"x = 1\nprint 'two'\n", "line 2: no Python 3"),
        (b"x = (1,\n", "no Python 3"),
        (b"x = 0" + b"9" * 5000, "no Python 3"),
        (b"x = " + b"(" * 5000 + b")" * 5000, "nested|no Python 3"),
        (b"x = " + b"1+" * 60_000 + b"1", "nested"),
        (b"#" * (MAX_BYTES + 1), "more than 256 KiB"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "config.py") in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.py", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            read_assignments(path)

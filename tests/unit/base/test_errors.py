"""Errors of libraries in the messages of ours."""

import pytest

from manyface.base.errors import one_line


@pytest.mark.parametrize(
    "text, line",
    [
        ("no such thing", "ValueError: no such thing"),
        ("\n a\nb", "ValueError: a"),
        (" ", "ValueError"),
        ("", "ValueError"),
        ("x" * 9999, "ValueError: " + "x" * 300),
    ],
)
def test_an_error_in_a_line(text, line):
    assert one_line(ValueError(text)) == line

"""Tables fit the terminal: columns give way, no line is longer than it, no method is lost."""

import pytest

from manyface.cli.console import format_bytes
from manyface.cli.tables import print_methods, print_scores
from manyface.evaluate import Score

ROWS = [
    {
        "name": "partial-fc",
        "verification_accuracy": 0.9312,
        "verification_std": 0.0123,
        "tar_at_far": {"0.01": 0.8},
        "images_per_second": 1234.5,
        "peak_memory_bytes": 512 * 2**20,
        "train_seconds": 125.0,
    },
    {
        "name": "untrained backbone",
        "verification_accuracy": None,
        "tar_at_far": {},
        "images_per_second": None,
        "peak_memory_bytes": None,
        "train_seconds": None,
    },
]


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120])
def test_methods_fit(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_methods(ROWS)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "93.1 % ± 1.2" in out
    assert "untrained" in out
    for heading, least in (("time", 40), ("images/s", 62), ("memory", 72)):
        assert (heading in out) == (width >= least)


def test_all_figures_are_there_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_methods(ROWS)
    out = capsys.readouterr().out
    for figure in ("80.0 %", "2 min 05 s", "1234", "512.0 MiB"):
        assert figure in out


@pytest.mark.parametrize("width", [40, 80])
def test_scores_fit(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_scores(
        "lfw [x]",
        [Score("accuracy", 0.91, 0.89, 0.93, "10 folds"), Score("auc", 1, None, None, "")],
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "lfw [x]" in out
    assert "0.8900 to 0.9300" in out


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**42, "4.0 TiB")],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text

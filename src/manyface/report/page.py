"""One self-contained HTML page for one or several runs: no script, no network, no other file."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from importlib.resources import files
from pathlib import Path

from manyface.base.errors import WriteError
from manyface.report import figures, results
from manyface.report.rows import Row
from manyface.report.runs import Run, Warn, read_runs

log = logging.getLogger(__name__)

# The browser itself refuses to fetch anything: styles and pictures come with the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(
    run_directories: Sequence[Path | str],
    output: Path | str,
    *,
    title: str | None = None,
    warn: Warn = log.warning,
) -> Path:
    """Write the page of these runs to `output` and return its path.

    A directory is a run, or a folder of runs (see `runs.py`). A missing or broken one is a
    DataError, and a page that was there before stays as it was.
    """
    runs, baselines = read_runs(run_directories, warn=warn)
    page = render_page(runs, baselines, title=title)
    output = Path(output)
    beside = output.with_name(f".{output.name}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(page, encoding="utf-8")
        beside.replace(output)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise WriteError(output, error) from error
    return output


def render_page(runs: Sequence[Run], baselines: Sequence[Row], *, title: str | None = None) -> str:
    """The whole page as text."""
    heading = title or " and ".join(run.name for run in runs[:3]) + (
        f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    )
    style = files("manyface.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "".join(
        [
            f"<header><p>manyface report</p><h1>{escape(heading)}</h1></header>",
            results.headline(runs, baselines),
            results.comparisons(runs),
            figures.training(runs, baselines),
            figures.discrimination(runs),
            figures.mistakes(runs),
            results.reproduction(runs),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(heading)} \u00b7 manyface</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )

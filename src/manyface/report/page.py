"""One self-contained HTML page for one or several runs: no script, no network, no other file."""

import logging
from collections.abc import Sequence
from pathlib import Path

from manyface.report import figures, results
from manyface.report.document import document, header, write_page
from manyface.report.rows import Row
from manyface.report.runs import Run, Warn, read_runs

log = logging.getLogger(__name__)


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
    return write_page(page, Path(output))


def render_page(runs: Sequence[Run], baselines: Sequence[Row], *, title: str | None = None) -> str:
    """The whole page as text."""
    heading = title or " and ".join(run.name for run in runs[:3]) + (
        f" and {len(runs) - 3} more" if len(runs) > 3 else ""
    )
    body = "".join(
        [
            header("manyface report", heading),
            results.headline(runs, baselines),
            results.comparisons(runs),
            figures.training(runs, baselines),
            figures.discrimination(runs),
            figures.mistakes(runs),
            results.reproduction(runs),
        ]
    )
    return document(heading, body)

"""What came out of a run, as one self-contained HTML page."""

from manyface.report.page import write_report
from manyface.report.runs import Run, read_run, read_runs

__all__ = ["Run", "read_run", "read_runs", "write_report"]

"""What came out of a run: one self-contained HTML page, and a table for the terminal."""

from manyface.report.page import write_report
from manyface.report.runs import Run, read_run, read_runs
from manyface.report.table import summary_table

__all__ = ["Run", "read_run", "read_runs", "summary_table", "write_report"]

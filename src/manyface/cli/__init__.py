"""The command line: one short file per verb; the only place that parses arguments and prints."""

from manyface.cli.program import main

__all__ = ["main"]

"""The papers' claims held to the test: studies of many runs, each run once, stopped and gone on.

`catalog.py` says what is compared, `running.py` trains what is missing, `ledger.py` keeps what runs
have shown, `judging.py` and `page.py` make tables, pictures and pages of it; `cost.py` is the one
study that measures instead of training.
"""

from pathlib import Path

DIRECTORY = Path("runs/reproduce")  # of runs, results and pages, where -d names no other

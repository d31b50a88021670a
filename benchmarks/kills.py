"""Runs killed with -9 at random moments and inside every phase of a save: what is lost.

    python benchmarks/kills.py [--kills 120 --seed 0 --folder /tmp]

Three campaigns (tests/reliability/killing.py): 2 ranks, every run compared bit for bit with one
that nobody touched; the same under the program torchrun itself; another number of ranks after each
kill, where only checkpoints and the completeness of the log are compared. 75, 10 and 15 % of kills.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from provenance import ROOT, write_result

sys.path.insert(0, str(ROOT / "tests" / "distributed"))
sys.path.insert(0, str(ROOT / "tests" / "reliability"))

from killing import Campaign

CAMPAIGNS: dict[str, tuple[float, dict[str, Any]]] = {
    "two_ranks": (0.75, {}),
    "two_ranks_of_the_program_torchrun": (0.1, {"forked": False}),
    "changing_ranks": (0.15, {"ranks": (1, 2, 3)}),
}


def main() -> int:
    """Kill, print, write the result file; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="on the disk to be tried")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"load_average_at_start": round(os.getloadavg()[0], 1)}
    problems = 0
    for name, (share, settings) in CAMPAIGNS.items():
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            kills = round(options.kills * share)
            tally = Campaign(Path(folder), kills=kills, seed=options.seed, **settings).run()
        problems += len(tally.problems)
        result[name] = tally.as_dict() | {"minutes": round((time.monotonic() - started) / 60, 1)}
        print(name, json.dumps(result[name], indent=1), flush=True)
    write_result("kills", result, options.json)
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())

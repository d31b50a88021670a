"""What every result file of a benchmark says about where its figures come from."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from manyface.observe.provenance import processor, versions

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Date, device, versions, commit (`+` where the tree had changes) and the command line."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python " + " ".join(["benchmarks/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+" if _git("status", "--porcelain", "--", "src") else ""),
        "device": processor(),
        "threads": torch.get_num_threads(),
        **versions(),
    }


def write_result(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Write `results/<name>.json` (or `path`): provenance first, then the figures."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"provenance": provenance(), **result}, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return run.stdout.strip()

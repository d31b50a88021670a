"""Whether `manyface plan` is right: what it says of recipes beside what they then take.

    python benchmarks/plan_check.py [--only NAME ...] [--calibration]

Each recipe is planned in one process and then trained for some steps in another: peak of anonymous
and shared memory, and the median over the log's stretches of images per second, the first ones left
out. The aims are 10 % of memory and 30 % of time. Constants of src/manyface/plan were chosen with
the recipes of --calibration, which are not judged. A quiet machine is needed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from provenance import RESULTS, ROOT, write_result

SHARED = (
    *("schedule.steps=24", "schedule.warmup_steps=0", "train.log_every=4"),
    *("evaluation.every_steps=0", "evaluation.num_pairs=20", "evaluation.num_identities=20"),
)
RECIPES: dict[str, tuple[str, ...]] = {
    "demo": (),
    "demo, f2c": ("head.method=f2c", "train.batch_size=128"),
    "small at 64, 1M, partial, bf16 rows": (
        *("data.image_size=64", "data.synthetic.num_identities=1000000", "head.sample_rate=0.1"),
        *("head.dtype=bfloat16", "backbone.embedding_size=256", "train.batch_size=128"),
    ),
    "mbf at 112, 200k, full, fp32": (
        *("data.image_size=112", "backbone=mbf", "data.synthetic.num_identities=200000"),
        *("backbone.embedding_size=512", "run.precision=fp32"),
    ),
    "r18 at 112, 100k, partial": (
        *("data.image_size=112", "backbone=r18", "data.synthetic.num_identities=100000"),
        *("backbone.embedding_size=512", "head.sample_rate=0.3", "train.batch_size=24"),
    ),
    "small at 32, 10M, r=0.01, no momentum": (
        *("data.synthetic.num_identities=10000000", "head.sample_rate=0.01"),
        *("head.dtype=bfloat16", "head.momentum=0", "backbone.embedding_size=256"),
    ),
    "vit_t at 112, 20k": (
        *("data.image_size=112", "backbone=vit_t", "data.synthetic.num_identities=20000"),
        *("backbone.embedding_size=512", "train.batch_size=32", "optimizer.name=adamw"),
        *("optimizer.learning_rate=0.001",),
    ),
    "virtual, small at 48": (
        *("data.image_size=48", "head.method=virtual", "data.synthetic.num_identities=500000"),
        *("train.batch_size=256",),
    ),
    "small at 64, accumulation, one thread": (
        *("data.image_size=64", "optimizer.accumulation=2", "run.threads=1", "train.ema=0.99"),
        *("data.synthetic.num_identities=50000", "head.missed_steps=lazy-exact"),
        *("head.sample_rate=0.2",),
    ),
    "mbf at 96, 300k, f2c": (
        *("data.image_size=96", "backbone=mbf", "data.synthetic.num_identities=300000"),
        *("head.method=f2c", "pool.ratio=0.1", "backbone.embedding_size=512"),
    ),
}
CALIBRATION: dict[str, tuple[str, ...]] = {
    "small at 64": ("data.image_size=64", "train.batch_size=128"),
    "mbf at 112": ("data.image_size=112", "backbone=mbf", "train.batch_size=32"),
    "r18 at 64, full 200k": (
        *("data.image_size=64", "backbone=r18", "data.synthetic.num_identities=200000"),
        *("train.batch_size=48",),
    ),
}


def overrides(changes: tuple[str, ...]) -> list[str]:
    """`--set` of each; another net than the demo's takes none of its options."""
    words = []
    for change in changes:
        words += ["--set", change]
    return words


def recipe_of(changes: tuple[str, ...], folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The demo's recipe, without the options of its net where another is chosen."""
    text = (ROOT / "src/manyface/cli/demo.toml").read_text()
    net = [change.removeprefix("backbone=") for change in changes if change.startswith("backbone=")]
    for line in ("stem_width = 32\n", "widths = [64, 128]\n", "depths = [1, 1]\n") if net else ():
        text = text.replace(line, "")
    if net:
        text = text.replace('name = "small"', f'name = "{net[0]}"')
    if any(change.startswith("head.method=") or "sample_rate" in change for change in changes):
        text = text.replace('method = "full"\n', "").replace("learning_rate = 0.01\n", "", 1)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path, tuple(change for change in changes if not change.startswith("backbone="))


def manyface(*words: str) -> None:
    """Runs a command of the library under test."""
    subprocess.run(
        [sys.executable, "-m", "manyface", *words], check=True, stdout=subprocess.DEVNULL
    )


def compared(changes: tuple[str, ...]) -> dict[str, Any]:
    """Plan and run of a recipe."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe, changes = recipe_of(changes, folder)
        words = overrides((*changes, *SHARED, f"run.directory={folder}", "run.name=run"))
        manyface("plan", str(recipe), *words, "--json", str(folder / "plan.json"))
        plan = json.loads((folder / "plan.json").read_text())
        manyface("train", str(recipe), *words, "--no-summary", "--quiet")
        result = json.loads((folder / "run" / "result.json").read_text())
        lines = (folder / "run" / "events.jsonl").read_text().splitlines()
    rates = [e["images_per_second"] for e in map(json.loads, lines) if e["kind"] == "step"]
    accumulation = [int(c.partition("=")[2]) for c in changes if "accumulation" in c]
    images = result["batch_size"] * (accumulation or [1])[0]
    found = {"bytes": result["peak_memory_bytes"], "seconds": images / statistics.median(rates[2:])}
    planned = {"bytes": plan["peak_bytes"], "seconds": plan["step_seconds"]}
    error = {key: planned[key] / found[key] - 1 for key in found}
    return {"planned": planned, "found": found, "error": error, "plan": plan}


def main() -> None:
    """Compare the recipes and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--calibration", action="store_true")
    options = parser.parse_args()
    recipes = CALIBRATION if options.calibration else RECIPES
    name = "plan_calibration" if options.calibration else "plan_check"
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text())["recipes"] if path.exists() else {}
    for recipe in options.only or recipes:
        results[recipe] = compared(recipes[recipe])
        error, found = results[recipe]["error"], results[recipe]["found"]
        print(
            f"{recipe:<40} memory {found['bytes'] / 2**20:7.0f} MiB {100 * error['bytes']:+.0f} %  "
            f"step {found['seconds']:.3f} s {100 * error['seconds']:+.0f} %",
            flush=True,
        )
        write_result(name, {"recipes": results}, path)


if __name__ == "__main__":
    main()

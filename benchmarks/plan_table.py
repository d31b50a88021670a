"""`manyface plan` for 8, 64 and 512 GPUs at 10M, 100M and 1B identities, and for published runs.

    python benchmarks/plan_table.py

Writes the tables of docs/plan.md between their marks, and results/plan_table.json. Nothing is
timed: seconds are those of data sheets, bytes are counted on small copies, so any machine will do.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from provenance import ROOT, write_result

from manyface.config import Config
from manyface.plan import Cluster, Prediction, advice, fewest_gpus, plan_for_gpus

PAGE = ROOT / "docs" / "plan.md"
SIZES, GPUS = (10**7, 10**8, 10**9), (8, 64, 512)
GB = 10**9
RECIPE = {
    "head": {"sample_rate": 0.1, "dtype": "bfloat16"},
    "backbone": {"name": "r50"},
}
IMAGES = 128  # of a GPU
# What Partial FC's authors printed (insightface: speed_benchmark.md, partial_fc's README,
# pfc_exp.png): GPUs, our data sheet of them if there is one, how many, identities, batch of all,
# megabytes a GPU, images a second. docs/plan.md says what they leave open.
PUBLISHED = (
    ("8 x V100", "v100", 8, 1_000_000, 1024, 5_620, 4_803),
    ("8 x V100", "v100", 8, 8_000_000, 1024, 12_310, 3_565),
    ("8 x V100", "v100", 8, 16_000_000, 1024, 19_950, 2_679),
    ("8 x V100", "v100", 8, 29_000_000, 1024, 32_324, 1_855),
    ("64 x RTX 2080 Ti", None, 64, 10_000_000, 4096, 6_722, 12_600),
    ("64, kind not stated, figure", None, 64, 8_000_000, 4096, 10_300, 29_600),
)


def main() -> None:
    rows = [cell(identities, gpus) for identities in SIZES for gpus in GPUS]
    published = [beside(*entry) for entry in PUBLISHED]
    write_result("plan_table", {"plans": rows, "published": published})
    text = PAGE.read_text(encoding="utf-8")
    shown = [{name: row[name] for name in row if name != "advice"} for row in rows]
    said = [f"- {_where(row)}: {text}.\n" for row in rows for text in row["advice"]]
    text = between(text, "plans", table(shown) + "\n" + "".join(said))
    PAGE.write_text(between(text, "published", table(published)), encoding="utf-8")


def cell(identities: int, gpus: int) -> dict[str, Any]:
    """One plan, and what to change where it does not fit."""
    train = {"batch_size": IMAGES * gpus}
    config, cluster = Config.model_validate({**RECIPE, "train": train}), Cluster("h100", gpus)
    found = plan_for_gpus(config, identities=identities, cluster=cluster)
    replan = partial(plan_for_gpus, identities=identities, cluster=cluster)
    fewest = partial(fewest_gpus, identities=identities, cluster=cluster)
    said = advice(config, found, replan, fewest=fewest)
    saving = found.saving
    assert saving is not None  # noqa: S101  planned for GPUs
    return {
        "identities": _count(identities),
        "GPUs": gpus,
        "identities a GPU": f"{-(-identities // gpus):,}",
        "GB a GPU": f"{found.bytes.peak / GB:.1f}{'' if found.fits else ': does not fit'}",
        "step, ms": _milliseconds(found.seconds.step),
        "of it head": _milliseconds(found.seconds.head),
        "of it waiting for ranks": _milliseconds(found.seconds.communication),
        "images/s": f"{found.images_per_second:,.0f}",
        "checkpoint, GB a GPU": f"{saving.of_rank / GB:.1f}",
        "save, s": f"{saving.seconds:,.0f}",
        "training waits, s": f"{saving.pause:.2g}" if saving.is_staged else f"{saving.pause:,.0f}",
        "shutdown-timeout": saving.shutdown,
        "advice": said,
    }


def beside(
    where: str,
    gpu: str | None,
    gpus: int,
    identities: int,
    batch: int,
    megabytes: int,
    images: int,
) -> dict[str, Any]:
    """A published run beside the plan of it: float32 rows with momentum, half-precision net."""
    config = Config.model_validate(
        {
            "run": {"precision": "bf16"},  # float16 there: as many bytes, the same rate
            "head": {"sample_rate": 0.1},
            "backbone": {"name": "r50"},
            "train": {"batch_size": batch},
        }
    )
    cluster = replace(Cluster(gpu or "v100", gpus), network_gbit=100.0)
    found: Prediction = plan_for_gpus(config, identities=identities, cluster=cluster)
    planned = found.images_per_second
    return {
        "GPUs": where,
        "identities": _count(identities),
        "batch": batch,
        "GB a GPU": f"{megabytes / 1000:.1f}",
        "planned": f"{found.bytes.peak / GB:.1f}",
        "images/s": f"{images:,}",
        "computed": "-" if gpu is None else f"{planned:,.0f}",
        "times": "-" if gpu is None else f"{planned / images:.1f}",
    }


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = [" | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(map(str, row.values())) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def between(text: str, name: str, new: str) -> str:
    """`text` with `new` between the marks of that name."""
    first, last = f"<!-- {name}: benchmarks/plan_table.py -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = text.partition(first)
    _, mark, after = rest.partition(last)
    if not mark:
        raise SystemExit(f"{PAGE} has no marks of {name}")
    return f"{before}{first}\n{new}\n{last}{after}"


def _where(row: dict[str, Any]) -> str:
    return f"{row['identities']} on {row['GPUs']} GPUs"


def _count(number: int) -> str:
    return f"{number // 10**9}B" if number >= 10**9 else f"{number // 10**6}M"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


if __name__ == "__main__":
    main()

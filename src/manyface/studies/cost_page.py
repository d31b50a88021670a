"""The page of what heads cost: a table, time and memory over identities, the papers' beside."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from manyface.report import charts, html, svg
from manyface.report.document import alone, document, header, write_page
from manyface.studies.cost import BATCH, DIM, METHODS, STEPS, Costs, Figures
from manyface.studies.tables import markdown

QUESTION = (
    f"What does a step of the head cost, forward, backward and update, with {BATCH} embeddings of "
    f"{DIM} numbers? The median of {STEPS} steps, and in brackets the shortest and the longest. "
    "Each in a process of its own; memory is the peak of it: rows, optimizer, "
    "step, and Python with torch (some 0.16 GiB). What does not fit is given with the bytes that "
    "it would take. Pale lines are what `manyface plan` says before anything of that size is made. "
    "The net is not in it: F2C's costs a third more for each photo, as its gallery net reads them "
    "too."
)
# Partial FC's own figures, 8 x V100 32 GB, whole trainings (arcface_torch docs/speed_benchmark.md):
# identities -> images/s and MB of a GPU, data parallel, model parallel and Partial FC.
PAPER: dict[int, tuple[tuple[int, int] | None, tuple[int, int] | None, tuple[int, int]]] = {
    125_000: ((4681, 7358), (4824, 5306), (5004, 4868)),
    250_000: ((4047, 9940), (4521, 5826), (4976, 5004)),
    500_000: ((3087, 14220), (4013, 7114), (4900, 5202)),
    1_000_000: ((2090, 23708), (3449, 9966), (4803, 5620)),
    1_400_000: ((1672, 32252), (3043, 11178), (4738, 6056)),
    2_000_000: (None, (2593, 13978), (4626, 6472)),
    4_000_000: (None, (1748, 23238), (4208, 8284)),
    5_500_000: (None, (1389, 32188), (3975, 9854)),
    8_000_000: (None, None, (3565, 12310)),
    16_000_000: (None, None, (2679, 19950)),
    29_000_000: (None, None, (1855, 32324)),
}
_FAR_MORE = 1.2  # than in proportion to the rows
HEADINGS = ("head", "identities", "seconds a step", "planned", "images/s", "memory, GiB")
_PAPER_HEADINGS = (
    "identities", "data parallel", "full FC, sharded", "Partial FC 0.1", "times full FC",
)  # fmt: skip


def write_costs(costs: Costs, classes: Sequence[int], folder: Path, *, command: str) -> Path:
    """cost.html, cost.md and two pictures in `folder`; the page's path."""
    pictures, lines = _pictures(costs, classes), _rows(costs, classes)
    notes = [*_machines(costs, classes), *_grown(costs, classes)]
    for number, drawing in enumerate(pictures.values(), start=1):
        write_page(alone(drawing), folder / f"cost-{number}.svg")
    write_page(_markdown_of(pictures, lines, notes, command), folder / "cost.md")
    return write_page(_page(pictures, lines, notes, command), folder / "cost.html")


def _pictures(costs: Costs, classes: Sequence[int]) -> dict[str, str]:
    """Name -> drawing, of time and memory, if any method ran."""
    drawn = {
        "Seconds a step": _chart(costs, classes, seconds_of, "Seconds a step", planned=True),
        "Memory, GiB": _chart(costs, classes, memory_of, "Memory, GiB"),
    }
    return {name: drawing for name, drawing in drawn.items() if drawing}


def _machines(costs: Costs, classes: Sequence[int]) -> list[str]:
    """Where the figures were measured, a sentence of each machine and version."""
    dates: dict[str, set[str]] = {}
    for _, _, found in _found(costs, classes):
        at = found.get("measured")
        dates.setdefault(_place(at), set()).update([at["date"]] if at else [])
    return [f"{', '.join([place, *sorted(on)])}." for place, on in dates.items()]


def _place(at: Mapping[str, Any] | None) -> str:
    if at is None:
        return "Machine not recorded"
    commit = f", commit {at['commit'][:7]}" if at["commit"] else ""
    return f"Measured on {at['device']}, {at['threads']} threads, torch {at['torch']}{commit}"


def _grown(costs: Costs, classes: Sequence[int]) -> list[str]:
    """Where full FC's time grows by far more than its rows, which flatters all that is set in
    relation to it there."""
    found = [(size, costs.of("full FC", size) or {}) for size in sorted(classes)]
    ran = [(size, seconds) for size, each in found if (seconds := seconds_of(each))]
    return [
        f"At {more:,} identities full FC takes {long / short:.0f} times as long as at {few:,}, for "
        f"{more / few:.0f} times the rows: softmax numerators above `kept_bytes` (128 MiB) are "
        "computed twice. By how much others are faster there is not of them alone."
        for (few, short), (more, long) in pairwise(ran)
        if long / short > _FAR_MORE * more / few
    ]


def _markdown_of(
    pictures: Iterable[str], lines: Sequence[Sequence[str]], notes: Sequence[str], command: str
) -> str:
    parts = [
        "# Cost of a step", QUESTION, f"`{command}`", " ".join(notes), markdown(HEADINGS, lines),
        *(f"![{name}](cost-{number}.svg)" for number, name in enumerate(pictures, start=1)),
        "## The paper's own", _about_paper(), markdown(_PAPER_HEADINGS, _paper_rows()),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _page(
    pictures: Mapping[str, str],
    lines: Sequence[Sequence[str]],
    notes: Sequence[str],
    command: str,
) -> str:
    keys = svg.legend([(name, f"line s{k}") for k, name in enumerate(METHODS)])
    body = [
        header("manyface reproduce", "Cost of a step"),
        html.section(
            "Time and memory",
            html.grid([html.figure(*each, legend=keys) for each in pictures.items()]),
            html.table(HEADINGS, _escaped(lines), name="cost of a step"),
            html.listing([note.replace("`", "") for note in notes], classes="notes"),
            lead=QUESTION.replace("`", ""),
        ),
        html.section(
            "The paper's own",
            html.table(_PAPER_HEADINGS, _escaped(_paper_rows()), name="the paper's own"),
            lead=_about_paper(),
        ),
        html.section("The exact command", html.code(command)),
    ]
    return document("Cost of a step", "".join(body))


def _about_paper() -> str:
    return (
        "Images/s and GB of a GPU in whole trainings on 8 GPUs of 32 GB, so ratios of heads alone "
        "are larger than these. Where there is nothing it did not fit."
    )


def _escaped(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in line] for line in lines]


def _rows(costs: Costs, classes: Sequence[int]) -> list[list[str]]:
    return [[name, f"{size:,}", *_row(found)] for name, size, found in _found(costs, classes)]


def _found(costs: Costs, classes: Sequence[int]) -> Iterator[tuple[str, int, Figures]]:
    for size in classes:
        for name in METHODS:
            if (found := costs.of(name, size)) is not None:
                yield name, size, found


def _row(found: dict[str, Any]) -> list[str]:
    planned = found.get("planned_seconds")
    said = "" if planned is None else f"{planned:.3g}"
    if (seconds := seconds_of(found)) is None:
        return [found.get("error") or "does not fit", said, "", _gib(found["needed_bytes"])]
    spread = found["step_seconds"]
    time = f"{seconds:.3g} [{spread['min']:.3g}, {spread['max']:.3g}]"
    return [time, said, f"{BATCH / seconds:,.0f}", f"{memory_of(found):.2f}"]


def seconds_of(found: dict[str, Any]) -> float | None:
    """Of a step, the median; None if it did not run."""
    return float(found["step_seconds"]["median"]) if "step_seconds" in found else None


def memory_of(found: dict[str, Any]) -> float | None:
    """GiB that the head held at most; None if it did not run."""
    if "resident_bytes" not in found:
        return None
    return float(found["resident_bytes"] + found["peak_extra_bytes"]) / 2**30


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} needed"


def _paper_rows() -> list[list[str]]:
    return [
        [f"{size:,}", *(_of_paper(each) for each in (copied, sharded, sampled)),
         "" if sharded is None else f"{sampled[0] / sharded[0]:.2f}, "
         f"{sampled[1] / sharded[1]:.2f} of the memory"]
        for size, (copied, sharded, sampled) in PAPER.items()
    ]  # fmt: skip


def _of_paper(found: tuple[int, int] | None) -> str:
    return "" if found is None else f"{found[0]:,}, {found[1] / 1000:.1f} GB"


def _chart(
    costs: Costs,
    classes: Sequence[int],
    value: Callable[[dict[str, Any]], float | None],
    name: str,
    *,
    planned: bool = False,
) -> str:
    """Lines of all methods; empty if none ran."""
    lines = []
    for style, method in enumerate(METHODS):
        found = [(size, costs.of(method, size)) for size in classes]
        points = [(size, y) for size, each in found if each and (y := value(each)) is not None]
        if points:
            lines.append(charts.Growth(method, style, points))
        said = [
            (size, each["planned_seconds"])
            for size, each in found
            if each and each.get("planned_seconds")
        ]
        if planned and said:
            lines.append(charts.Growth(f"{method}, planned", style, said, marked=False))
    return charts.growth_chart(lines, name=name, x_label="identities") if lines else ""

"""What a study shows in words: a table's lines, what they say, what was looked at besides."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manyface.studies.cells import Table
from manyface.studies.differences import Difference
from manyface.studies.judging import Line

ONE_SEED = "one seed"
_FAR = "0.01"  # of the true accepts beside the accuracy
_WHAT = {"groups": "accuracy on new photos", "updates": "updates with, without an own image"}
_OF_SCALE = {
    "tiny": "This scale shows that studies work: what it finds says nothing.",
    "small": "All synthetic faces are of one world, and the learning rates of their recipe were "
    "chosen for full FC and the convolutional net on these pairs; the ViT's and LFW's were not.",
}
Text = tuple[list[str], list[list[str]]]  # headings, lines


@dataclass(frozen=True)
class Judged:
    """A table and its finished lines."""

    table: Table
    lines: list[Line]


def line_of(judged: Sequence[Judged], table: str, cell: str) -> Line | None:
    """The line of a cell, by the title of its table and its name; None if it is not finished."""
    for each in judged:
        for line in each.lines:
            if (each.table.title, line.cell.name) == (table, cell):
                return line
    return None


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(
        f"| {' | '.join(each)} |" for each in (headings, ["---"] * len(headings), *lines)
    )


def in_points(found: Difference) -> str:
    """A difference with its interval."""
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def with_spread(values: Sequence[float]) -> str:
    """The mean of some seeds; of several with their standard deviation."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) < 2 else f"{mean} ±{statistics.stdev(values):.3f}"


def text_of(judged: Judged, study: Sequence[Judged] = ()) -> Text:
    """The table: a line for each cell, or for each head where columns are learning rates; `study`
    are all tables of its study."""
    return _matrix(judged) if judged.table.columns else _lines(judged, study)


def _lines(judged: Judged, study: Sequence[Judged]) -> Text:
    headings = ["", "accuracy of each seed", "mean", f"minus {judged.table.baseline}, points",
                "TAR at FAR 1 %"]  # fmt: skip
    more = _more_columns(judged, study)
    lines = [
        [*_line(line), *(of_cell[line.cell.name] for of_cell in more.values())]
        for line in judged.lines
    ]
    return [*headings, *more], lines


def _more_columns(judged: Judged, study: Sequence[Judged]) -> dict[str, dict[str, str]]:
    """Heading -> name of a cell -> text, of what only some tables have."""
    found, table = {}, judged.table
    if any(line.cell.published for line in judged.lines):
        found["published"] = {line.cell.name: line.cell.published for line in judged.lines}
    if table.clean:
        found["minus itself with clean labels"] = {
            line.cell.name: _minus(line, line_of(study, table.clean, line.cell.name))
            for line in judged.lines
        }
        found[f"minus that of {table.baseline}"] = {
            line.cell.name: "" if line.withstands is None else in_points(line.withstands)
            for line in judged.lines
        }
    return found


def _minus(line: Line, other: Line | None) -> str:
    return "" if other is None else f"{100 * (line.mean - other.mean):+.1f}"


def _line(line: Line) -> list[str]:
    tars = [run["tar_at_far"][_FAR] for run in line.runs if _FAR in run["tar_at_far"]]
    return [
        line.cell.name,
        " ".join(f"{round(accuracy, 6):.3f}" for accuracy in line.accuracies),
        with_spread(line.accuracies),
        "" if line.less is None else in_points(line.less),
        with_spread(tars) if tars else "",
    ]


def _matrix(judged: Judged) -> Text:
    """Names of cells are "head, column"; accuracy, and the difference in points."""
    found = {line.cell.name: line for line in judged.lines}
    columns, own = judged.table.columns, judged.table.baseline.rpartition(", ")[2]
    named = [cell.name.rpartition(", ") for cell in judged.table.cells]
    heads = dict.fromkeys(head for head, _, column in named if column == own)
    lines = [[head, *(_short(found.get(f"{head}, {each}")) for each in columns)] for head in heads]
    return ["", *columns], lines


def _short(line: Line | None) -> str:
    if line is None:
        return ""
    return f"{line.mean:.3f}" + (f" ({line.less.value:+.1f})" if line.less else "")


def said(judged: Judged) -> list[str]:
    """Which cells are better and worse than the baseline by their intervals; nothing of columns."""
    compared = [(_named(line), line.less) for line in judged.lines if line.less is not None]
    groups = {
        "Better than": [name for name, less in compared if less.low > 0],
        "Not to be told from": [name for name, less in compared if less.low <= 0 <= less.high],
        "Worse than": [name for name, less in compared if less.high < 0],
    }
    found = [
        f"{what} {judged.table.baseline}: {'; '.join(names)}."
        for what, names in groups.items()
        if names
    ]
    return [] if judged.table.columns else found


def _named(line: Line) -> str:
    return line.cell.name if len(line.runs) > 1 else f"{line.cell.name} ({ONE_SEED})"


def about(judged: Sequence[Judged], scale: str) -> list[str]:
    """What the numbers of the tables are, at this scale."""
    lines = [line for each in judged for line in each.lines]
    pairs = sorted({line.runs[0]["num_pairs"] for line in lines})
    over_seeds = (
        ", and the spread of the difference over seeds, the cell's own beside that of the table's "
        "other cells if they are two or more (where all have one seed, of the study's other "
        "tables of that recipe), so that two tables may give one difference two intervals"
    )
    return [
        f"Accuracy: share of {' or '.join(f'{each:,}' for each in pairs)} pairs of people not "
        "trained on that are decided rightly, each tenth by the threshold of the others.",
        "Minus the baseline: points of accuracy, mean over the seeds that both have, with its 95 % "
        "interval: people of the pairs resampled (pairs, where nobody is named)"
        f"{over_seeds if any(len(line.runs) > 1 for line in lines) else ''}.",
        "Each interval is of one comparison: of twenty cells that do not differ from the baseline, "
        f"one is said to. {_OF_SCALE.get(scale, '')}".strip(),
    ]


def trained_on(judged: Sequence[Judged]) -> str:
    """Where the runs were made, and of which commits."""
    runs = {run["commit"]: run for each in judged for line in each.lines for run in line.runs}
    places = dict.fromkeys(f"{run['device']}, {run['precision']}" for run in runs.values())
    return f"Trained on {'; '.join(places)}; commits {', '.join(commit[:7] for commit in runs)}."


# --- what was looked at ---------------------------------------------------------------------------


def looks_of(judged: Judged, looks: Sequence[str]) -> list[Text]:
    """A table for each kind of look that a study asks for; where columns are compared, none."""
    if judged.table.columns:
        return []
    found = [
        _last_cosines(judged) if look == "cosines" else _of_groups(judged, look) for look in looks
    ]
    return [(headings, lines) for headings, lines in found if lines]


def _last_cosines(judged: Judged) -> Text:
    headings = ["at the end of training", "cosine to the own center", "to the nearest other"]
    lines = []
    for line in judged.lines:
        ends = [run["looks"]["cosines"][-1] for run in line.runs if run["looks"].get("cosines")]
        if ends:
            means = [_mean(ends, key) for key in ("own", "nearest_other")]
            lines.append([line.cell.name, *(f"{mean:.3f}" for mean in means)])
    return headings, lines


def _of_groups(judged: Judged, look: str) -> Text:
    """A line for each cell, a column for each group of people."""
    found = [(line, [run["looks"][look] for run in line.runs if run["looks"].get(look)])
             for line in judged.lines]  # fmt: skip
    found = [(line, each) for line, each in found if each]
    if not found:
        return [], []
    names = [group["group"] for group in found[0][1][0]]
    lines = [
        [line.cell.name, *(_of_group([run[n] for run in each]) for n in range(len(names)))]
        for line, each in found
    ]
    return [_WHAT[look], *names], lines


def _of_group(runs: Sequence[dict[str, Any]]) -> str:
    if "accuracy" in runs[0]:
        return with_spread([run["accuracy"] for run in runs])
    return f"{_mean(runs, 'own'):,.1f}, {_mean(runs, 'passive'):,.1f}"


def _mean(runs: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(each[key] for each in runs)

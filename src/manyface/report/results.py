"""The sections of numbers: headline table, intervals, paired comparisons, how to reproduce."""

from collections.abc import Sequence
from html import escape
from itertools import combinations
from shlex import quote

import numpy as np

from manyface.evaluate.bootstrap import Resampler, accuracy_difference
from manyface.report import html, numbers, svg
from manyface.report.charts import Estimate, intervals_chart
from manyface.report.rows import Row, accuracy_of, fars_of, headline_set, sets_of, tar_of
from manyface.report.runs import PairScores, Run

# Comparisons grow with the square of the runs: beyond this many, each with the first one only.
_MAX_PAIRWISE = 4


def headline(runs: Sequence[Run], baselines: Sequence[Row]) -> str:
    """Every method with its quality and its cost."""
    rows = [*(run.row for run in runs), *baselines]
    fars = fars_of(rows)
    quality = ["accuracy", *(f"TAR at FAR {numbers.far_name(far)}" for far in fars), "AUC"]
    cost = ["training", "images/s", "peak memory", "identities", "sample rate"]
    body = [
        [_named(run.name, style), *_quality(run.row, fars), *_cost(run.row)]
        for style, run in enumerate(runs)
    ] + [
        [_named(str(row.get("name", "?")), None), *_quality(row, fars), *_cost(row)]
        for row in baselines
    ]
    return html.section(
        "Verification",
        html.table(["method", *quality, *cost], body, name="results"),
        _intervals(runs, baselines),
        html.listing(_warnings(runs), classes="warnings"),
        _protocols(rows),
        lead="Is this pair of images one person or two? Accuracy is the mean over folds \u00b1 its "
        "spread; small figures are 95 % intervals.",
    )


def _named(name: str, style: int | None) -> str:
    mark = "none" if style is None else f"s{style % svg.NUM_STYLES}"
    swatch = f'<svg class="key" viewBox="0 0 10 10" aria-hidden="true"><circle class="dot {mark}" '
    return (
        f'<span class="name">{swatch}cx="5" cy="5" r="4"/></svg><span>{escape(name)}</span></span>'
    )


def _quality(row: Row, fars: Sequence[str]) -> list[str]:
    accuracy, spread, score = accuracy_of(row)
    plus_minus = "" if spread is None or accuracy is None else f" \u00b1 {100 * spread:.1f}"
    cells = [html.cell(numbers.percent(accuracy) + plus_minus, _interval(score))]
    for far in fars:
        value, score = tar_of(row, far)
        cells.append(html.cell(numbers.percent(value), _interval(score)))
    area = row.get("auc")
    return [*cells, html.cell(numbers.MISSING if area is None else f"{area:.4f}")]


def _interval(score: Row) -> str:
    return numbers.interval(score.get("low"), score.get("high"))


def _cost(row: Row) -> list[str]:
    values = [
        (numbers.duration(row.get("train_seconds")), _steps(row)),
        (numbers.count(row.get("images_per_second")), ""),
        (numbers.size(row.get("peak_memory_bytes")), ""),
        (numbers.count(row.get("num_identities") or None), _counted(row, "num_images", "images")),
        (numbers.plain(row.get("sample_rate")), _pool(row)),
    ]
    return [html.cell(value, below) for value, below in values]


def _steps(row: Row) -> str:
    steps, batch = row.get("steps"), row.get("batch_size")
    return "" if not steps or not batch else f"{steps:,} steps of {batch:,}"


def _counted(row: Row, field: str, what: str) -> str:
    return f"{row[field]:,} {what}" if row.get(field) else ""


def _pool(row: Row) -> str:
    """What stands for class centers where there are none: slots, or their share of the people."""
    pool = row.get("pool") or {}
    if pool.get("slots"):
        return f"pool of {pool['slots']:,}"
    return f"pool of {100 * pool['ratio']:g} %" if pool.get("ratio") else ""


def _intervals(runs: Sequence[Run], baselines: Sequence[Row]) -> str:
    """Accuracy and the hardest TAR of every method with their intervals, side by side."""
    named: list[tuple[str, Row, int | None]] = [
        *((run.name, run.row, style) for style, run in enumerate(runs)),
        *((str(row.get("name", "?")), row, None) for row in baselines),
    ]
    figures = []
    accuracy = [_estimate(name, style, *accuracy_of(row)[::2]) for name, row, style in named]
    note = "95 % intervals; where two overlap, look at the paired comparison below"
    figures.append(_estimates_figure("Verification accuracy", accuracy, note))
    for far in fars_of([row for _, row, _ in named])[-1:]:
        tars = [_estimate(name, style, *tar_of(row, far)) for name, row, style in named]
        title = f"TAR at FAR {numbers.far_name(far)}"
        note = "share of same pairs accepted where that share of different pairs is; 95 % intervals"
        figures.append(_estimates_figure(title, tars, note))
    return html.grid([figure for figure in figures if figure])


def _estimate(name: str, style: int | None, value: float | None, score: Row) -> Estimate | None:
    if value is None:
        return None
    return Estimate(name, value, score.get("low"), score.get("high"), style)


def _estimates_figure(title: str, estimates: Sequence[Estimate | None], note: str) -> str:
    known = [estimate for estimate in estimates if estimate is not None]
    if len(known) < 2:
        return ""
    return html.figure(title, intervals_chart(known, name=title), note=note)


def _protocols(rows: Sequence[Row]) -> str:
    """How the headline numbers were measured, each wording once."""
    lines: list[str] = []
    for row in rows:
        name = headline_set(row)
        for score in sets_of(row).get(name or "", []):
            line = f"{name}, {score.get('name')}: {score.get('protocol')}"
            if score.get("protocol") and line not in lines:
                lines.append(line)
        lines += [note for note in row.get("notes") or [] if note not in lines]
    content = html.listing(lines, classes="notes")
    return html.folded("How these numbers were measured", content) if lines else ""


def _warnings(runs: Sequence[Run]) -> list[str]:
    lines = [
        f"{run.name}: {event.get('text', event)}"
        for run in runs
        for event in run.events_of("warning")
    ]
    unfinished = [f"{run.name} has not finished: no result.json yet" for run in runs if not run.row]
    return list(dict.fromkeys([*unfinished, *lines]))


def comparisons(runs: Sequence[Run]) -> str:
    """Differences in accuracy between runs that were scored on the same pairs."""
    pairs = list(combinations(runs, 2))
    if len(runs) > _MAX_PAIRWISE:
        pairs = [(first, second) for first, second in pairs if first is runs[0]]
    body = []
    for first, second in pairs:
        for name in sorted(first.scores.keys() & second.scores.keys()):
            if first.scores[name].pairs == second.scores[name].pairs:
                body.append(_comparison(first, second, name))
    return html.section(
        "Paired comparison",
        html.table(["difference", "pairs of", "points", "95 % interval"], body, name="comparison")
        if body
        else "",
        lead="Both methods judge the same pairs, so what both find hard cancels. A difference is "
        "told from none where its interval excludes 0.",
    )


def _comparison(first: Run, second: Run, name: str) -> list[str]:
    mine, other = first.scores[name], second.scores[name]
    found = accuracy_difference(
        mine.folds.correct, other.folds.correct, mine.fold, _resampler(mine)
    )
    limits = f"{numbers.points(found.low)} to {numbers.points(found.high)}"
    return [
        html.cell(f"{first.name} \u2212 {second.name}"),
        html.cell(name),
        html.cell(numbers.points(found.value)),
        html.cell(limits, f"bootstrap over {_resampler(mine).unit}"),
    ]


def _resampler(scores: PairScores) -> Resampler:
    if scores.left_identity is None or scores.right_identity is None:
        position = np.arange(len(scores.same))
        return Resampler(scores.same, position, position, "pairs")
    return Resampler(scores.same, scores.left_identity, scores.right_identity)


def reproduction(runs: Sequence[Run]) -> str:
    """The commands, versions and resolved configuration of each run."""
    parts = [
        html.folded(
            run.name,
            html.code(_commands(run)) + _facts(run) + (html.code(run.config) if run.config else ""),
            opened=len(runs) == 1,
        )
        for run in runs
    ]
    return html.section(
        "Reproduce",
        *parts,
        lead="The recipe, its seed and the versions below, on the same kind of machine.",
    )


def _commands(run: Run) -> str:
    directory = quote(str(run.directory))
    commit = run.row.get("commit")
    lines = [f"git checkout {commit}"] if commit else []
    command = run.row.get("command")
    if command:
        words = command if isinstance(command, str) else " ".join(map(quote, command))
        lines += ["# as it was started", words]
    return "\n".join(
        [
            *lines,
            "# from the resolved recipe, which is printed below",
            f"manyface train {quote(str(run.directory / 'config.toml'))} "
            f"--set run.name={quote(run.name + '-again')}",
            f"manyface evaluate {directory}",
            f"manyface report {directory}",
        ]
    )


def _facts(run: Run) -> str:
    known = {
        key: run.row.get(key) for key in ("device", "precision", "seed", "commit", "num_images")
    }
    versions = run.row.get("versions") or {}
    facts = {**known, **(versions if isinstance(versions, dict) else {"versions": versions})}
    items = "".join(
        f"<div><dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd></div>"
        for key, value in facts.items()
        if value is not None
    )
    return f"<dl>{items}</dl>" if items else ""

"""The sections of pictures: training curves, ROC, histograms, the most confident mistakes."""

from collections.abc import Sequence
from html import escape
from typing import Any

from manyface.evaluate.result import Mistakes
from manyface.report import charts, html, svg
from manyface.report.pictures import data_uri
from manyface.report.rows import Row, headline_set
from manyface.report.runs import Run

MISTAKES = (
    "Wrong answers that lie farthest from the threshold: the easiest errors to understand, and "
    "where wrong labels show. If these are photographs of real people, keep this page to yourself."
)


def training(runs: Sequence[Run], baselines: Sequence[Row]) -> str:
    """Loss, learning rate and verification accuracy over the steps."""
    keys = _legend(runs)
    figures = []
    loss = _step_curves(runs, "loss")
    if loss:
        window = charts.smoothing_window(max(len(curve.steps) for curve in loss))
        note = f"pale: as logged; bold: running mean of {window}" if window > 1 else ""
        drawing = charts.curves_chart(loss, name="Training loss", smooth=window > 1)
        figures.append(html.figure("Training loss", drawing, note=note, legend=keys))
    for name in _evaluated_sets(runs):
        found = _accuracy_curves(runs, name)
        levels = [
            (str(row.get("name", "?")), float(row["verification_accuracy"]))
            for row in baselines
            if row.get("verification_accuracy") is not None and headline_set(row) in (None, name)
        ]
        if any(len(curve.steps) > 1 for curve in found):
            drawing = charts.curves_chart(
                found, name=f"Accuracy on {name}", shares=True, levels=levels
            )
            note = f"pairs of {name}; band or bar: 95 % interval"
            figures.append(html.figure("Accuracy", drawing, note=note, legend=keys))
    rates = _step_curves(runs, "learning_rate")
    if rates:
        drawing = charts.curves_chart(rates, name="Learning rate", from_zero=True)
        figures.append(html.figure("Learning rate", drawing, legend=keys))
    speed = _step_curves(runs, "images_per_second")
    if speed:
        drawing = charts.curves_chart(speed, name="Images per second", from_zero=True)
        figures.append(html.figure("Images per second", drawing, legend=keys))
    return html.section("Training", html.grid(figures))


def discrimination(runs: Sequence[Run]) -> str:
    """ROC of all runs and histograms of each, for every evaluated set."""
    parts = []
    for name in sorted({name for run in runs for name in run.scores}):
        scored = [
            (run.name, style, run.scores[name])
            for style, run in enumerate(runs)
            if name in run.scores
        ]
        span = charts.similarity_span([pairs for _, _, pairs in scored])
        note = f"{name}, {len(scored[0][2].same):,} pairs; ends at the smallest rate they can show"
        figures = [html.figure("ROC", charts.roc_chart(scored), note=note, legend=_legend(runs))]
        both = [("one person", "area same"), ("two people", "area different")]
        keys = svg.legend([*both, ("threshold", "line threshold")])
        for run_name, _, pairs in scored:
            drawing = charts.histogram_chart(pairs, span)
            named = f"Similarity, {run_name}" if len(runs) > 1 else "Similarity"
            share = "share of the pairs of each kind"
            figures.append(html.figure(named, drawing, note=share, legend=keys))
        parts.append(html.grid(figures))
    return html.section("Telling people apart", *parts)


def mistakes(runs: Sequence[Run]) -> str:
    """The wrongly judged pairs that lie farthest from the threshold, as pictures."""
    parts = []
    for run in runs:
        for name, found in sorted(run.mistakes.items()):
            if len(found.same):
                heading = f"{run.name}, {name}" if len(runs) > 1 else name
                parts.append(f"<h3>{escape(heading)}</h3>{mistaken_pairs(found)}")
    return html.section(
        "The most confident mistakes",
        *parts,
        lead=MISTAKES,
    )


def mistaken_pairs(found: Mistakes) -> str:
    """Both pictures of each, what was said of them, and how alike they are."""
    items = []
    for left, right, similarity, same in zip(
        found.left, found.right, found.similarity, found.same, strict=True
    ):
        said = "one person, taken for two" if same else "two people, taken for one"
        items.append(
            f'<li><div class="faces">{_picture(left, "left")}{_picture(right, "right")}</div>'
            f"{said}<small>cosine {similarity:.2f}</small></li>"
        )
    return f'<ul class="pairs">{"".join(items)}</ul>'


def _picture(image: Any, side: str) -> str:
    height, width = image.shape[:2]
    return f'<img src="{data_uri(image)}" width="{width}" height="{height}" alt="{side} image">'


def _legend(runs: Sequence[Run]) -> str:
    if len(runs) < 2:
        return ""
    return svg.legend([(run.name, f"line s{i % svg.NUM_STYLES}") for i, run in enumerate(runs)])


def _step_curves(runs: Sequence[Run], field: str) -> list[charts.Curve]:
    """The curve of one field of the step events; steps where it was not finite are left out."""
    curves = []
    for style, run in enumerate(runs):
        events = [event for event in run.events_of("step") if event.get(field) is not None]
        if events:
            steps = [float(event.get("step", 0)) for event in events]
            values = [float(event[field]) for event in events]
            curves.append(charts.Curve(run.name, style, steps, values))
    return curves


def _evaluated_sets(runs: Sequence[Run]) -> list[str]:
    events = [event for run in runs for event in run.events_of("evaluation")]
    return sorted({str(event.get("set")) for event in events})


def _accuracy_curves(runs: Sequence[Run], name: str) -> list[charts.Curve]:
    curves = []
    for style, run in enumerate(runs):
        found = [
            (float(event.get("step", 0)), score)
            for event in run.events_of("evaluation")
            if str(event.get("set")) == name
            for score in event.get("scores", [])
            if score.get("name") == "accuracy" and score.get("value") is not None
        ]
        if not found:
            continue
        curves.append(
            charts.Curve(
                run.name,
                style,
                steps=[step for step, _ in found],
                values=[float(score["value"]) for _, score in found],
                low=[score.get("low") for _, score in found],
                high=[score.get("high") for _, score in found],
            )
        )
    return curves

"""The page of `manyface evaluate`: one model on several sets, each under its protocol."""

from collections.abc import Mapping, Sequence
from html import escape

from manyface.evaluate.identification import SEARCH
from manyface.evaluate.result import ProtocolResult, Score
from manyface.evaluate.sets.base import Judgement
from manyface.report import charts, html, numbers, svg
from manyface.report.document import document, header
from manyface.report.figures import MISTAKES, mistaken_pairs

_DIGITS = 2
# What the axes of ROC and DET are.
_PAIRS = ("false accept rate", "accepted same pairs", "rejected same pairs")
_OPEN_SET = ("false positive identification rate", "mated probes found", "mated probes missed")


def render_judgements(about: Mapping[str, str], found: Sequence[Judgement]) -> str:
    """The whole page as text.

    Args:
        about: of the model, in words: "model", "embedding size", ...
    """
    heading = about.get("model", "a model")
    body = [
        header("manyface evaluate", heading),
        _about(about),
        *(_set(result) for each in found for result in each.results),
        _mistakes(found),
    ]
    return document(heading, "".join(body))


def _about(about: Mapping[str, str]) -> str:
    rows = [
        [escape(name), f'<span class="words">{escape(value)}</span>']
        for name, value in about.items()
    ]
    return html.section("The model", html.table(["what", "value"], rows, name="the model"))


def _set(found: ProtocolResult) -> str:
    rows = [[escape(score.name), *_cells(score)] for score in found.scores]
    table = html.table(["score", "value", "95 % interval"], rows, name=f"scores of {found.name}")
    notes = html.listing(found.notes, classes="notes")
    rules = dict.fromkeys(score.protocol for score in found.scores)
    how = html.folded("How each was measured", html.listing(list(rules), classes="notes"))
    return html.section(found.name, table, notes, _curves(found), how, lead=found.protocol)


def _cells(score: Score) -> list[str]:
    if not 0 <= score.value <= 1:
        return [html.cell(f"{score.value:.4g}"), numbers.MISSING]
    interval = numbers.interval(score.low, score.high)
    return [html.cell(numbers.percent(score.value, _DIGITS)), html.cell(interval)]


def _curves(found: ProtocolResult) -> str:
    drawn = [
        (each.name or found.name, style, each)
        for style, each in enumerate(found.curves)
        if (each.far > 0).any()
    ]
    if not drawn:
        return ""
    keys = svg.legend([(name, f"line s{i % svg.NUM_STYLES}") for name, i, _ in drawn])
    legend = keys if len(drawn) > 1 else ""
    rate, accepted, rejected = _OPEN_SET if found.protocol.startswith(SEARCH) else _PAIRS
    roc, det = (charts.rates_chart(drawn, det=each, x_label=rate) for each in (False, True))
    figures = [
        html.figure("ROC", roc, note=accepted, legend=legend),
        html.figure("DET", det, note=rejected, legend=legend),
    ]
    return html.grid(figures)


def _mistakes(found: Sequence[Judgement]) -> str:
    parts = [
        f"<h3>{escape(each.results[0].name)}</h3>{mistaken_pairs(each.mistakes)}"
        for each in found
        if each.mistakes is not None and len(each.mistakes.same)
    ]
    return html.section("The most confident mistakes", *parts, lead=MISTAKES)

"""Small pieces of HTML; everything that comes from a run is escaped here or by the caller."""

from collections.abc import Sequence
from html import escape


def section(name: str, *content: str, lead: str = "") -> str:
    """A titled section, or nothing where there is no content."""
    inside = "".join(content)
    if not inside:
        return ""
    intro = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<section><h2>{escape(name)}</h2>{intro}{inside}</section>"


def figure(name: str, drawing: str, *, note: str = "", legend: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    caption = f"<figcaption><b>{escape(name)}</b>{small}</figcaption>"
    return f"<figure>{caption}{legend}{drawing}</figure>"


def grid(figures: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, name: str) -> str:
    """A table in a box of its own that scrolls sideways. The cells of `rows` are HTML already."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(value: str, below: str = "") -> str:
    """A table cell: a value and, smaller under it, what qualifies it."""
    return escape(value) + (f"<small>{escape(below)}</small>" if below else "")


def listing(lines: Sequence[str], *, classes: str) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{classes}">{items}</ul>' if lines else ""


def folded(name: str, content: str, *, opened: bool = False) -> str:
    state = " open" if opened else ""
    return f"<details{state}><summary>{escape(name)}</summary>{content}</details>"


def code(content: str) -> str:
    return f'<pre tabindex="0"><code>{escape(content)}</code></pre>'

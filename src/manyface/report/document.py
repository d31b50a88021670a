"""The frame of every page: one file that holds all it shows, and fetches nothing."""

from html import escape
from importlib.resources import files
from pathlib import Path

from manyface.base.files import written

# The browser itself refuses to fetch anything: styles and pictures come with the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """The page as text; `body` is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} \u00b7 manyface</title>\n<style>\n{_style()}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


def alone(drawing: str) -> str:
    """A chart of `svg.drawing` as a file of its own, in the style of the pages."""
    look = "svg{background:var(--card);font-family:system-ui,sans-serif}"
    head, _, content = drawing.partition(">")
    head = head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return f"{head}><style>{escape(_style() + look, quote=False)}</style>{content}\n"


def _style() -> str:
    return files("manyface.report").joinpath("style.css").read_text(encoding="utf-8")


def header(kind: str, heading: str) -> str:
    """The first thing on a page."""
    return f"<header><p>{escape(kind)}</p><h1>{escape(heading)}</h1></header>"


def write_page(page: str, output: Path) -> Path:
    """Write `page` whole, or leave what was there; WriteError if it cannot be written."""
    with written(output) as file:
        file.write(page.encode(errors="backslashreplace"))  # names of files may be no text
    return output

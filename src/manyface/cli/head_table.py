"""What `manyface bench head` has found, for a terminal of any width from 40 columns on."""

from collections.abc import Callable, Mapping
from typing import Any

from manyface.cli.console import format_bytes, make_console

Figures = dict[str, Any]
# Heading, text of a method that ran (figures, name of the rival), and the narrowest terminal in
# which it is worth its place.
_COLUMNS: list[tuple[str, Callable[[Figures, str], str], int]] = [
    ("step", lambda found, _: format_seconds(found["step_seconds"]["median"]), 0),
    ("extra", lambda found, _: format_bytes(found["peak_extra_bytes"]), 0),
    ("held", lambda found, _: format_bytes(found["resident_bytes"]), 50),
    ("gemm", lambda found, _: f"{100 * found['gemm_fraction']:.0f} %", 58),
    ("time", lambda found, rival: _times(found["ratio"][rival]["time"]), 70),
    ("memory", lambda found, rival: _times(found["ratio"][rival]["memory"]), 70),
]


def print_heads(result: Mapping[str, Any]) -> None:
    """A line for each method, with its figures or why there are none; then what they mean."""
    methods: dict[str, Figures] = result["methods"]
    console = make_console()
    columns = [column for column in _COLUMNS if console.width >= column[2]]
    rows = {
        name: [text(found, result["against"]) for _, text, _ in columns]
        for name, found in _ran(methods).items()
    }
    headings = [heading for heading, _, _ in columns]
    widths = [max(map(len, cells)) for cells in zip(headings, *rows.values(), strict=True)]
    first = max(map(len, ("method", *methods)))
    if rows:
        console.print(_line("method", headings, first, widths))
    for name, found in methods.items():
        cells = rows[name] if name in rows else [_why_not(found)]
        console.print(_line(name, cells, first, widths))
    for note in _notes(result):
        console.print(note)


def format_seconds(seconds: float) -> str:
    """Seconds to three digits: 0.412 ms, 41.2 ms, 4.12 s."""
    if seconds >= 0.9995:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{1e3 * seconds:.3g} ms"


def _line(name: str, cells: list[str], first: int, widths: list[int]) -> str:
    if len(cells) == 1:  # it has a reason in place of figures
        return f"{name:<{first}} {cells[0]}"
    right = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
    return " ".join([f"{name:<{first}}", *right])


def _ran(methods: Mapping[str, Figures]) -> dict[str, Figures]:
    return {name: found for name, found in methods.items() if "step_seconds" in found}


def _why_not(found: Figures) -> str:
    if "error" in found:
        return f"died: {found['error']}"
    needed, left = format_bytes(found["needed_bytes"]), format_bytes(found["available_bytes"])
    return f"does not fit yet: needs {needed}, {left} free"


def _notes(result: Mapping[str, Any]) -> list[str]:
    ran, shape = _ran(result["methods"]), result["shape"]
    if not ran:
        return []
    rates = result["product"]["flop_per_second"].items()
    best = ", ".join(f"{dtype} {rate / 1e9:.1f} GFLOP/s" for dtype, rate in rates)
    notes = [
        f"\n{shape['classes']:,} classes, batch {shape['batch']}, dim {shape['dim']}, "
        f"{shape['dtype']}, threads {shape['threads']}; median of {shape['steps']} steps",
        "step: forward, backward and update; extra: peak of its memory above what is held",
        f"gemm: 3 products [B, D] x [D, k], at the best 2048^3 rate ({best}), as share of the step",
        f"time, memory (held + extra, the process included): of those of "
        f"{result['against']}{_other_rivals(result)}",
    ]
    return [*notes, *(_pool_note(name, found) for name, found in ran.items() if "passes" in found)]


def _other_rivals(result: Mapping[str, Any]) -> str:
    """Where to look for the ratios that the table has no place for."""
    more = any(len(found["ratio"]) > 1 for found in _ran(result["methods"]).values())
    return "; against every other rival: --json" if more else ""


def _pool_note(name: str, found: Figures) -> str:
    images = found["passes"] * found["probes_per_pass"]
    return (
        f"{name}: {found['passes']} passes of {found['probes_per_pass']} probes, {images} distinct "
        f"images; planning ({format_seconds(found['plan_seconds']['median'])}, a loader thread's "
        f"work) is not in step; needs {found['products']:.1f} of gemm's 3 products"
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"

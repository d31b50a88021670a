"""What `manyface bench head` has found, for a terminal of any width from 40 columns on."""

from collections.abc import Mapping
from typing import Any

from manyface.cli.console import format_bytes
from manyface.cli.measured_table import Column, Figures, format_seconds, print_measured, ran


def print_heads(result: Mapping[str, Any]) -> None:
    """A line for each method, with its figures or why there are none; then what they mean."""
    columns = _columns(result["against"])
    print_measured("method", result["methods"], columns=columns, notes=_notes(result))


def _columns(rival: str) -> list[Column]:
    return [
        ("step", lambda found: format_seconds(found["step_seconds"]["median"]), 0),
        ("extra", lambda found: format_bytes(found["peak_extra_bytes"]), 0),
        ("held", lambda found: format_bytes(found["resident_bytes"]), 50),
        ("gemm", lambda found: f"{100 * found['gemm_fraction']:.0f} %", 58),
        ("time", lambda found: _times(found["ratio"][rival]["time"]), 70),
        ("memory", lambda found: _times(found["ratio"][rival]["memory"]), 70),
    ]


def _notes(result: Mapping[str, Any]) -> list[str]:
    methods, shape = ran(result["methods"]), result["shape"]
    if not methods:
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
    pools = (_pool_note(name, found) for name, found in methods.items() if "passes" in found)
    return [*notes, *pools]


def _other_rivals(result: Mapping[str, Any]) -> str:
    """Where to look for the ratios that the table has no place for."""
    more = any(len(found["ratio"]) > 1 for found in ran(result["methods"]).values())
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

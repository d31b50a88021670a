"""What `manyface bench train` has found, for a terminal of any width from 40 columns on."""

from collections.abc import Mapping
from typing import Any

from manyface.cli.console import format_bytes
from manyface.cli.measured_table import Column, Figures, format_seconds, print_measured, ran


def _share(part: str, heading: str, least: int) -> Column:
    return heading, lambda found: f"{100 * found['shares'][part]:.0f} %", least


_COLUMNS: list[Column] = [
    ("images/s", lambda found: f"{found['images_per_second']:,.4g}", 0),
    _share("loader", "wait", 44),
    _share("backbone", "net", 0),
    _share("head", "head", 0),
    _share("update", "update", 52),
    _share("rows", "rows", 58),
    ("step", lambda found: format_seconds(found["step_seconds"]["median"]), 68),
    ("memory", lambda found: format_bytes(_memory(found)), 80),
]


def print_trainings(trainings: Mapping[str, Figures]) -> None:
    """A line for each, with its figures or why there are none; then what they mean."""
    print_measured("training", trainings, columns=_COLUMNS, notes=_notes(trainings))


def _memory(found: Figures) -> int:
    on_device: int | None = found["peak_device_bytes"]
    held: int = found["resident_bytes"] + found["peak_extra_bytes"]
    return held if on_device is None else on_device


def _notes(trainings: Mapping[str, Figures]) -> list[str]:
    done = list(ran(trainings).values())
    if not done:
        return []
    return [_heading_note(done[0]), _SHARES, *_loader_notes(done[0]["loader"])]


_SHARES = (
    "shares of a step: wait for the batch; net and head, forward and backward; update of the net; "
    "rows, the update of the class centers"
)


def _heading_note(found: Figures) -> str:
    """Of the first one; what a combination changes is in its name."""
    chosen = found["settings"]
    ways = [name for name in ("channels_last", "compile", "fused") if chosen[name]]
    return (
        f"\n{found['num_identities']:,} identities, {chosen['image_size']} pixels, "
        f"{found['precision']}, {', '.join(ways) or 'nothing'} on; images/s: distinct training "
        f"images of a step over the median of {chosen['steps']} steps"
    )


def _loader_notes(loader: Mapping[str, Any]) -> list[str]:
    if not loader["on"]:
        return ["without the loader: batches were made before the first step"]
    decode, augment = (loader["seconds_per_image"][key] for key in ("decode", "augmentation"))
    workers = f"{loader['workers']} worker thread{'s' if loader['workers'] > 1 else ''}"
    return [
        f"loader: an image takes {format_seconds(decode + augment)} of a worker (decode "
        f"{format_seconds(decode)}, augmentation {format_seconds(augment)}), measured alone; it is "
        f"done by {workers} beside the steps: it overlaps with them and shares their cores, only "
        "wait is time of the step"
    ]

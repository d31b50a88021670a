"""Numbers as people read them."""

from typing import Any

MISSING = "\u2013"


def percent(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None else f"{100 * value:.{digits}f} %"


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def plain(value: Any) -> str:
    return MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def size(num_bytes: float | None) -> str:
    """Decimal units: 1 GB = 10^9 bytes."""
    if num_bytes is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            number = num_bytes / scale
            return f"{number:.{1 if number < 100 else 0}f} {unit}"
    return f"{num_bytes:.0f} bytes"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares, in percent: 93.1 to 95.0."""
    if low is None or high is None:
        return ""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points(difference: float) -> str:
    """A signed difference of shares in points of percent, with a true minus sign."""
    return f"{100 * difference:+.1f}".replace("-", "\u2212")


def far_name(far: str) -> str:
    """A false accept rate as a share: 0.001 -> 0.1 %, which no line break parts."""
    return f"{100 * float(far):g}\u00a0%"

"""One row of the summary: the numbers of a result.json, each with its interval."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def headline_set(row: Row) -> str | None:
    """The set that the row's accuracy was measured on: the first whose accuracy equals it."""
    names = list(sets_of(row))
    wanted = row.get("verification_accuracy")
    matches = [name for name in names if score_of(row, name, "accuracy").get("value") == wanted]
    return next(iter(matches or names), None)


def sets_of(row: Row) -> dict[str, list[Row]]:
    """The scores of each evaluated set, as lists of {name, value, low, high, protocol}."""
    sets = row.get("sets") or {}
    return {
        str(name): list(scores.get("scores", [])) if isinstance(scores, dict) else list(scores)
        for name, scores in sets.items()
    }


def score_of(row: Row, set_name: str | None, score: str) -> Row:
    """One score of a set, {} where it was not measured."""
    scores = sets_of(row).get(set_name or "", [])
    return next((found for found in scores if found.get("name") == score), {})


def fars_of(rows: Sequence[Row]) -> list[str]:
    """Every FAR that some row has a TAR for, largest first."""
    return sorted({far for row in rows for far in row.get("tar_at_far") or {}}, key=float)[::-1]


def tar_of(row: Row, far: str) -> tuple[float | None, Row]:
    """TAR at `far` of a row, and its score with interval ({} where there is none)."""
    value = (row.get("tar_at_far") or {}).get(far)
    return value, score_of(row, headline_set(row), f"tar@far={float(far):g}")


def accuracy_of(row: Row) -> tuple[float | None, float | None, Row]:
    """Accuracy, its spread over folds, and its score with interval."""
    found = score_of(row, headline_set(row), "accuracy")
    return row.get("verification_accuracy"), row.get("verification_std"), found

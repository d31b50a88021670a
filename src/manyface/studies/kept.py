"""Files of results, checked when they are read: what a study has kept may have been damaged."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from manyface.base.errors import DataError

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class Kept(BaseModel):
    """What is read of a table of such a file; there may be more in it."""

    model_config = ConfigDict(strict=True)


def read_kept(path: Path, kind: type[Kept], *, what: str, part: str) -> dict[str, Any]:
    """The content of the JSON file `path`.

    Args:
        kind: what it must be.
        what: what the file is for.
        part: what can be taken out of it, and is then made again.

    Raises:
        DataError: it is something else; place in it, what was expected and what is there.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind.model_validate(content)
    except (OSError, ValueError, RecursionError) as error:
        fault = _first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise DataError(
            f"{path} holds no {what} that can be used: {fault}; put a copy back, take that {part} "
            "out, which is then made again, or move the file away to begin anew"
        ) from error
    return content


def _first_fault(error: ValidationError) -> str:
    """Place, what was expected, and what is there."""
    first = error.errors()[0]
    place = ": ".join(str(part) for part in first["loc"]) or "all of it"
    got = "" if first["type"] == "missing" else f", got {first['input']!r:.60}"
    return f"{place}: {first['msg']}{got}"


def _hexadecimal(text: str) -> str:
    bytes.fromhex(text)
    return text


Hexadecimal = Annotated[str, AfterValidator(_hexadecimal)]

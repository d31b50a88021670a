"""The kinds of value that keys take, and the record that every section is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
Cosine = Annotated[float, Field(gt=-1, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrOff = Annotated[int, Field(ge=0)]
Seed = Annotated[
    int, Field(ge=0, lt=2**63, json_schema_extra={"expected": "a whole number from 0 to 2^63 - 1"})
]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A TOML table: closed, frozen, and strict about types ("3" is not 3, 1 is not true)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

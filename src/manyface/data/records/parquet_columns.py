"""Which columns of a Parquet file hold images, labels and paths."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from manyface.base.errors import DataError, to_install
from manyface.data.records.naming import person_name

_IMAGES = ("image", "img", "images", "jpg", "jpeg", "png", "webp", "picture", "photo", "face")
_LABELS = ("label", "labels", "identity", "identity_id", "person", "person_id", "subject", "class",
           "cls", "name", "target", "id")  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Where images, labels and paths are.

    Attributes:
        image: a column of bytes, or a struct with them.
        label: a column of numbers, or of names (`has_names`); None if there is none.
        path: of the images, as a column within a struct; None if there is none.
    """

    image: str
    in_struct: bool
    label: str | None
    has_names: bool
    path: str | None

    @classmethod
    def of(cls, schema: Any, types: Any, file: Path) -> "Columns":
        """Those of a file; DataError if it has none of images, or of labels."""
        kinds = {name: schema.field(name).type for name in dict.fromkeys(schema.names)
                 if schema.get_field_index(name) >= 0}  # fmt: skip
        image = next((n for n in (*_IMAGES, *kinds) if _holds_images(kinds.get(n), types)), None)
        label = next((n for n in _LABELS if _holds_labels(kinds.get(n), types)), None)
        there = f"it has {', '.join(schema.names)}"
        if image is None:
            raise DataError(
                f"{file} has no column of images: expected bytes, or a struct of bytes and path, "
                f"called image; {there}"
            )
        in_struct = types.is_struct(kinds[image])
        has_path = in_struct and _is_text(field_of(kinds[image], "path"), types)
        if label is None and not has_path:
            raise DataError(
                f"{file} has no column of labels: expected one of {', '.join(_LABELS)}; {there}"
            )
        has_names = label is not None and not _is_number(kinds[label], types)
        return cls(image, in_struct, label, has_names, f"{image}.path" if has_path else None)


def _holds_images(kind: Any, types: Any) -> bool:
    if kind is not None and types.is_struct(kind):
        kind = field_of(kind, "bytes")
    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))


def _holds_labels(kind: Any, types: Any) -> bool:
    if kind is not None and types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind, types) or (kind is not None and _is_number(kind, types))


def _is_text(kind: Any, types: Any) -> bool:
    return kind is not None and (types.is_string(kind) or types.is_large_string(kind))


def _is_number(kind: Any, types: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind))


def field_of(kind: Any, name: str) -> Any | None:
    """The type of a field of a struct."""
    index = kind.get_field_index(name)
    return None if index < 0 else kind.field(index).type


def class_names(schema: Any, label: str | None) -> list[str] | None:
    """Names of numbered people in the features that `datasets` keeps in a schema."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
        names = [person_name(str(name)) for name in names]
    except (KeyError, TypeError, ValueError):
        return None
    return names if len(set(names)) == len(names) and all(names) else None


def library() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"Parquet needs the package pyarrow; run: {to_install('parquet')}"
        ) from None
    return pyarrow, pyarrow.parquet

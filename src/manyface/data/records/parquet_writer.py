"""Parquet written in Hugging Face's layout; read by `datasets` and by parquet.py."""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from manyface.base.files import new_file
from manyface.data.records.files import PlainFile
from manyface.data.records.parquet_columns import library
from manyface.data.records.writer import DraftFile, Position, RecordWriter, draft_of, new_folder


class ParquetWriter(RecordWriter):
    """Writes the folder `path` with `train-00000.parquet`, `train-00001.parquet`, ...

    A Parquet file cannot be gone on with, so records are first laid in a plain file, and each
    part is made of one when that is full.

    Args:
        path, identity_names: as of RecordWriter.
        max_bytes: of the images of a part.
    """

    _ROWS, _GROUP_BYTES = 64, 8 << 20
    _MOST_CLASS_NAMES = 100_000  # they are in the footer of each part; more are left to the paths
    _HEADER = struct.Struct("<IIQ")  # person, bytes of the name, bytes of the image

    def __init__(
        self, path: Path, *, identity_names: Sequence[str], max_bytes: int = 256 << 20
    ) -> None:
        super().__init__(path, identity_names=identity_names)
        self._arrow, self._parquet = library()
        self._folder = new_folder(path)
        self._max_bytes = max_bytes
        self._part, self._committed_part = 0, 0
        self._rows = DraftFile(self._rows_path(0))

    def add(self, image: bytes, *, person: int, name: str) -> None:
        encoded = os.fsencode(name)
        self._rows.write(self._HEADER.pack(person, len(encoded), len(image)) + encoded + image)
        if self._rows.length >= self._max_bytes:
            self._finish_part()
            self._rows = DraftFile(self._rows_path(self._part))

    def commit(self) -> Position:
        # A part's rows go at the commit after the next: until then, its own may be resumed from.
        for part in range(self._committed_part):
            self._draft(part).unlink(missing_ok=True)
        self._committed_part = self._part
        return {"part": self._part, "length": self._rows.sync()}

    def resume(self, position: Position) -> None:
        self._rows.close()
        self._part = self._committed_part = position["part"]
        # `finish` was cut off after it had thrown the rows away: nothing is left to be written.
        was_finished = position["length"] > 0 and self._is_without_rows(self._part)
        self._part += was_finished
        for part in self._folder.glob("train-*.parquet"):
            if int(part.stem[6:]) >= self._part:
                part.unlink()
        for draft in self._folder.glob(".train-*"):  # of a part that was just being written
            draft.unlink()
        for rows in self._folder.glob("rows-*.part"):
            if int(rows.stem[5:]) > self._part:
                rows.unlink()
        self._rows = DraftFile(self._rows_path(self._part))
        if not was_finished:
            self._rows.cut(position["length"])

    def finish(self) -> None:
        if self._rows.length or not self._part:
            self._finish_part()
        self._rows.close()
        for draft in self._folder.glob("rows-*"):
            draft.unlink()
        self._folder.replace(self.path)

    def close(self) -> None:
        self._rows.close()

    def _is_without_rows(self, part: int) -> bool:
        rows = self._draft(part)
        written = (self._folder / f"train-{part:05d}.parquet").exists()
        return written and not (rows.exists() and rows.stat().st_size)

    def _rows_path(self, part: int) -> Path:
        return self._folder / f"rows-{part:05d}"

    def _draft(self, part: int) -> Path:
        return draft_of(self._rows_path(part))

    def _finish_part(self) -> None:
        self._rows.sync()
        self._rows.close()
        schema = self._schema()
        with (
            new_file(self._folder / f"train-{self._part:05d}.parquet") as file,
            self._parquet.ParquetWriter(
                file, schema, compression="none", use_dictionary=False, write_statistics=False
            ) as writer,
        ):
            for rows in self._groups(PlainFile(self._draft(self._part))):
                writer.write_batch(self._arrow.RecordBatch.from_pylist(rows, schema=schema))
        self._part += 1

    def _groups(self, file: PlainFile) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        position, num_bytes = 0, 0
        while position < file.size:
            header = self._HEADER.unpack(file.read(position, self._HEADER.size))
            person, name_size, image_size = header
            data = file.read(position + self._HEADER.size, name_size + image_size)
            name = data[:name_size].decode("utf-8", "backslashreplace")
            path = f"{self.identity_names[person]}/{name}"
            rows.append({"image": {"bytes": data[name_size:], "path": path}, "label": person})
            position += self._HEADER.size + len(data)
            num_bytes += image_size
            if len(rows) == self._ROWS or num_bytes > self._GROUP_BYTES:
                yield rows
                rows, num_bytes = [], 0
        if rows:
            yield rows

    def _schema(self) -> Any:
        arrow = self._arrow
        label: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
        if len(self.identity_names) <= self._MOST_CLASS_NAMES:
            label = {"names": list(self.identity_names), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        return arrow.schema(
            [("image", image), ("label", arrow.int64())],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )

"""The index of enrolled people: one file, whose model is known, whose bytes are checked.

It holds the embeddings with their people, images and enrolments (people.py), from `CODES_FROM`
embeddings on their sign codes (codes.py), and says which model made them. The file is laid out as
safetensors are; `docs/formats/people-index.md` describes it. Nothing in it is a program or an
object of another library, so one from a stranger is read as safely as one's own. It is written
under another name and renamed: an enrolment that is killed leaves the file that was there.

An index is a value: enrolling and removing give a new one, which `save` writes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar, get_type_hints

import numpy as np
import xxhash

from manyface.base.errors import ConfigError, DataError, WriteError
from manyface.base.files import new_file
from manyface.data.records.index_file import Arrays, map_arrays, write_arrays, wrong_hash
from manyface.data.records.table import StringTable
from manyface.gallery.codes import Coder, UInt8Array, make_coder
from manyface.gallery.people import (
    BoolArray,
    Faces,
    People,
    nobody,
    with_faces,
    without,
)

SUFFIX = ".index"
CODES_FROM = 1 << 16  # embeddings; below, comparing with all of them is as quick
_FORMAT = "manyface-people-1"
_CODES = ("codes", "center", "directions")
_NO_INDEX = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
_AGED = 2.0  # as many embeddings as when the coder was made, times this: a new one
_HIGHEST = 2.0  # cosine of a limit; above 1 where a stranger was as alike as a face is itself

RecordT = TypeVar("RecordT")


@dataclass(frozen=True)
class Limit:
    """From which cosine on two faces are one person.

    Attributes:
        cosine: at least so much.
        far: share of pairs of strangers that reach it, where that was measured.
        measured_on: the set on which it was.
    """

    cosine: float
    far: float | None = None
    measured_on: str | None = None


@dataclass(frozen=True)
class Maker:
    """The model whose embeddings an index holds.

    Attributes:
        fingerprint: of its weights.
        embedding_size: D.
        path: where it was found; may be gone.
        limit: of the model, if it has one.
    """

    fingerprint: str
    embedding_size: int
    path: str = ""
    limit: Limit | None = None


@dataclass(frozen=True)
class Cropping:
    """How images became faces, as options of the command line.

    Attributes:
        align: the detector by which photos were aligned; None: they were aligned before.
        resize: faces of another size than the model's were resized.
    """

    align: str | None = None
    resize: bool = False


@dataclass(frozen=True)
class Change:
    """One version of an index: what it has added and taken out.

    Attributes:
        version: from 1.
        source: what was enrolled, in words.
        added, removed: embeddings.
        when: ISO date and time.
    """

    version: int
    source: str
    added: int
    removed: int
    when: str


@dataclass(frozen=True, eq=False)
class PeopleIndex:
    """Attributes:
    maker: whose embeddings these are.
    people: who is enrolled.
    changes: every version so far, first to last.
    coder, codes: of `CODES_FROM` embeddings or more, uint8 [N, B / 8]; else None.
    coded_at: embeddings there were when the coder was made.
    cropping: of the first images that were enrolled; None: nobody has said.
    """

    maker: Maker
    people: People
    changes: Sequence[Change] = ()
    coder: Coder | None = None
    codes: UInt8Array | None = None
    coded_at: int = 0
    cropping: Cropping | None = None

    @classmethod
    def new(cls, maker: Maker, cropping: Cropping | None = None) -> Self:
        """Without people."""
        return cls(maker, nobody(maker.embedding_size), cropping=cropping)

    @property
    def version(self) -> int:
        """Number of changes so far."""
        return self.changes[-1].version if self.changes else 0

    def enrol(
        self, faces: Faces, *, source: str, when: str, replace_people: bool = False
    ) -> "PeopleIndex":
        """With new faces; see `with_faces`."""
        version = self.version + 1
        people, stayed = with_faces(
            self.people, faces, version=version, replace_people=replace_people
        )
        removed = len(stayed) - int(stayed.sum())
        change = Change(version, source, len(faces.embeddings), removed, when)
        return self._changed(people, stayed, change)

    def remove(self, names: Sequence[str], *, when: str) -> "PeopleIndex":
        """Without the people called so; DataError where nobody is."""
        people, stayed = without(self.people, names)
        source = f"removed: {', '.join(names)}"
        change = Change(self.version + 1, source, 0, len(stayed) - int(stayed.sum()), when)
        return self._changed(people, stayed, change)

    def check_maker(self, maker: Maker, where: str) -> None:
        """Raise ConfigError unless `maker` is the model of this index, which lies at `where`."""
        ours = self.maker
        if ours.embedding_size != maker.embedding_size:
            raise ConfigError(
                f"{where} has embeddings of {ours.embedding_size} values, the model gives "
                f"{maker.embedding_size}: it is another model; use {ours.path or 'its own'}, or "
                "enrol into a new index"
            )
        if ours.fingerprint != maker.fingerprint:
            raise ConfigError(
                f"{where} was made with another model ({ours.path or 'unknown'}, "
                f"{ours.fingerprint[:12]}; got {maker.fingerprint[:12]}): embeddings of two "
                "models, or of one that is fed in two ways, cannot be compared; use that one, or "
                "enrol into a new index"
            )

    def _changed(self, people: People, stayed: BoolArray, change: Change) -> "PeopleIndex":
        changed = replace(self, people=people, changes=(*self.changes, change))
        return _coded(changed, stayed)

    def save(self, path: Path | str) -> None:
        """Write the file `path`, whole or not at all.

        Raises:
            WriteError: it cannot be written.
        """
        path = Path(path)
        arrays: Arrays = {
            "embeddings": self.people.embeddings,
            "labels": self.people.labels,
            "versions": self.people.versions,
            **_as_table(self.people.names).parts("names"),
            **_as_table(self.people.images).parts("images"),
        }
        if self.coder is not None and self.codes is not None:
            coded = (self.codes, self.coder.center, self.coder.directions)
            arrays.update(zip(_CODES, coded, strict=True))
        facts = json.dumps(
            {
                "maker": asdict(self.maker),
                "changes": [asdict(change) for change in self.changes],
                "coded_at": self.coded_at,
                "cropping": None if self.cropping is None else asdict(self.cropping),
            }
        )
        notes = {"format": _FORMAT, "facts": facts, "facts_hash": _hash_of(facts)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as file:
                write_arrays(file, arrays, notes)
        except OSError as error:
            raise WriteError(path, error) from error

    @classmethod
    def open(cls, path: Path | str) -> "PeopleIndex":
        """The index in the file `path`; its embeddings stay there and are mapped.

        All bytes are read once and compared with their hashes.

        Raises:
            DataError: there is none, or it is no index, of another version, cut off or damaged.
        """
        path = Path(path)
        try:
            if path.exists() and not path.is_file():  # a pipe would wait
                raise DataError(f"cannot read {path}: it is no plain file")
            arrays, notes = map_arrays(path)
        except FileNotFoundError:
            raise DataError(
                f"no index at {path}; make one with: manyface enroll FOLDER --model MODEL "
                f"--index {path}"
            ) from None
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from None
        except _NO_INDEX as error:
            raise _no_index(path, f"it is no index, or cut off ({error})") from None
        if not isinstance(notes, dict) or notes.get("format") != _FORMAT:
            found = notes.get("format") if isinstance(notes, dict) else None
            raise DataError(
                f"{path} is no index of people of this version: expected {_FORMAT}, got {found!r}; "
                "make it again with manyface enroll"
            )
        try:
            return _read(arrays, notes)
        except _NO_INDEX as error:
            raise _no_index(path, str(error)) from None


def _coded(index: PeopleIndex, stayed: BoolArray) -> PeopleIndex:
    """With the codes of its people, of which those that `stayed`, bool [N before], have theirs."""
    embeddings = index.people.embeddings
    if len(embeddings) < CODES_FROM:
        return replace(index, coder=None, codes=None, coded_at=0)
    if index.coder is None or index.codes is None or len(embeddings) > _AGED * index.coded_at:
        coder = make_coder(embeddings)
        return replace(index, coder=coder, codes=coder.encode(embeddings), coded_at=len(embeddings))
    kept = index.codes[stayed]
    fresh = index.coder.encode(embeddings[len(kept) :])
    return replace(index, codes=np.concatenate([kept, fresh]))


def _read(arrays: Arrays, notes: dict[str, str]) -> PeopleIndex:
    """ValueError, KeyError, TypeError: what does not fit."""
    if _hash_of(notes["facts"]) != notes["facts_hash"]:
        raise ValueError("what it says of itself is damaged")
    if json.loads(notes["hashes"]).keys() != arrays.keys():
        raise ValueError("an array is missing")
    if (name := wrong_hash(arrays, notes)) is not None:
        raise ValueError(f"its {name} are damaged")
    facts = json.loads(notes["facts"])
    maker = _maker(facts["maker"])
    people = _people(arrays, maker.embedding_size)
    changes = [_record(Change, change) for change in facts["changes"]]
    cropping = facts.get("cropping")  # absent before there was one
    index = PeopleIndex(
        maker, people, changes, cropping=None if cropping is None else _record(Cropping, cropping)
    )
    if "codes" not in arrays:
        return index
    num_bits = arrays["directions"].shape[-1]
    if num_bits % 8 or not num_bits:
        raise ValueError(f"codes of {num_bits} bits")
    _check_shape(arrays, "directions", (maker.embedding_size, num_bits), np.float32)
    _check_shape(arrays, "center", (maker.embedding_size,), np.float32)
    _check_shape(arrays, "codes", (len(people), num_bits // 8), np.uint8)
    coder = Coder(np.array(arrays["center"]), np.array(arrays["directions"]))  # torch may write
    return replace(index, coder=coder, codes=arrays["codes"], coded_at=int(facts["coded_at"]))


def _maker(found: Mapping[str, Any]) -> Maker:
    limit = None if found["limit"] is None else _record(Limit, found["limit"])
    if limit is not None and not (
        abs(limit.cosine) <= _HIGHEST and (limit.far is None or 0 < limit.far <= 1)
    ):
        raise ValueError(f"its limit cannot be: {limit}")
    return _record(Maker, {**found, "limit": limit})


def _record(kind: type[RecordT], found: Mapping[str, Any]) -> RecordT:
    """`found` as a `kind`; ValueError, KeyError or TypeError where it is none: who sends a file
    may have hashed anything."""
    hints = get_type_hints(kind)
    for name, value in found.items():
        as_written = isinstance(value, hints[name])
        if not as_written and not (type(value) is int and isinstance(0.0, hints[name])):
            raise ValueError(f"its {name} is {type(value).__name__}")
    return kind(**found)


def _people(arrays: Arrays, embedding_size: int) -> People:
    """The arrays as people, if they fit each other."""
    count = len(arrays["labels"])
    names, images = (_table(arrays, name) for name in ("names", "images"))
    _check_shape(arrays, "embeddings", (count, embedding_size), np.float16)
    _check_shape(arrays, "versions", (count,), np.uint32)
    _check_shape(arrays, "labels", (count,), np.int64)
    labels = arrays["labels"]
    if len(images) != count or (count and not 0 <= labels.min() <= labels.max() < len(names)):
        raise ValueError("names do not fit the embeddings")
    if len(np.unique(labels)) != len(names):
        raise ValueError("somebody has no embedding")
    return People(arrays["embeddings"], labels, arrays["versions"], names, images)


def _table(arrays: Arrays, name: str) -> StringTable:
    text, ends = arrays[f"{name}.text"], arrays[f"{name}.ends"]
    if (
        text.ndim != 1
        or ends.ndim != 1
        or not len(ends)
        or ends[0] != 0
        or ends[-1] != len(text)
        or (ends[1:] < ends[:-1]).any()
    ):
        raise ValueError(f"{name} do not fit")
    return StringTable.from_parts(text, ends)


def _check_shape(
    arrays: Arrays, name: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    found = arrays[name]
    if found.shape != shape or found.dtype != dtype:
        raise ValueError(f"{name} have shape {list(found.shape)}, expected {list(shape)}")


def _as_table(strings: Sequence[str]) -> StringTable:
    return strings if isinstance(strings, StringTable) else StringTable(strings)


def _no_index(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} cannot be used: {reason}; copy it again, or make it anew with manyface enroll"
    )


def _hash_of(text: str) -> str:
    return xxhash.xxh3_64_hexdigest(text.encode())

"""`manyface data convert`: a set written in another format, byte for byte.

Images are copied as they are, never encoded again. People keep their names and their order, photos
theirs where they have any and where they may be names of files (file_names.py). Records stream
through memory; every few seconds what was written is forced to the disk and the journal says so,
and a conversion that was killed goes on from there and ends in the same files. At the end the new
set is read in full: the same people with the same images, by their checksums, which go into its
index.
"""

import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manyface.base.errors import DataError, WriteError
from manyface.base.permutation import Permutation
from manyface.base.progress import Progress
from manyface.base.threads import usable_cores
from manyface.data.records import IndexedRecords, Records, labels_of, open_records
from manyface.data.records.base import Warn
from manyface.data.records.index import checksum_of, keep_index
from manyface.data.records.recordio_writer import check_headers
from manyface.data.records.store import Int64Array, UInt32Array
from manyface.data.records.writer import Position, RecordWriter, draft_of
from manyface.data.tools.check import Show
from manyface.data.tools.file_names import FileNames
from manyface.data.tools.formats import FORMATS
from manyface.data.tools.journal import DONE, FINISHING, VERIFYING, WRITING, Journal
from manyface.data.tools.measures import fingerprint, total_bytes, width_of_images
from manyface.data.tools.reading import chunks_of, in_storage_order, mapped

log = logging.getLogger(__name__)

_ROOM = 1.1  # of the bytes of the images that have to be free


@dataclass(frozen=True)
class ConvertOptions:
    """How a set is converted.

    Attributes:
        form: one of FORMATS.
        shuffle: seed of a random order of the records; None: person by person.
        headers: insightface's header records, in RecordIO.
        verify: read the new set in full and compare.
        threads: that read; 0: one per core.
        commit_records, commit_seconds: at the latest after so many the journal is written.
    """

    form: str
    shuffle: int | None = None
    headers: bool = False
    verify: bool = True
    threads: int = 0
    commit_records: int = 100_000
    commit_seconds: float = 10.0


def convert(
    records: Records,
    destination: Path,
    options: ConvertOptions,
    *,
    show: Show,
    warn: Warn = log.warning,
) -> None:
    """Write `records` as `destination`; the same call goes on with what was cut off.

    `warn` is told if people get other labels there.

    Raises:
        DataError: something is there already, an image cannot be read, the disk is too small, or
            what was written is not what was read. WriteError: it cannot be written.
    """
    _check_options(records, destination, options)
    job = _job(records, options)
    try:
        with Journal(destination) as journal:
            if journal.exists:
                journal.read(job)
            else:
                _check_free(FORMATS[options.form].places(destination))
                journal.begin(job)
            if journal.stage != DONE:
                _Conversion(records, destination, options, job, journal).run(show, warn)
            journal.remove(job)
    except OSError as error:
        raise WriteError(error.filename or destination, error) from error


class _Conversion:
    def __init__(
        self,
        records: Records,
        destination: Path,
        options: ConvertOptions,
        job: dict[str, Any],
        journal: Journal,
    ) -> None:
        self.records, self.destination, self.options = records, destination, options
        self.job, self.journal = job, journal
        self.threads = options.threads or usable_cores()
        self.names = FileNames(records, sorts_people=not FORMATS[options.form].in_order)
        self.shuffled = (
            None if options.shuffle is None else Permutation(len(records), seed=options.shuffle)
        )

    def run(self, show: Show, warn: Warn) -> None:
        journal = self.journal
        finished = self.destination.exists() and not draft_of(self.destination).exists()
        if journal.stage == WRITING or (journal.stage == FINISHING and not finished):
            _check_space(self.records, self.destination, journal.done)
            self._write(show("writing"))
        if journal.stage != VERIFYING:
            self._save(VERIFYING, journal.position)
        written = open_records(self.destination, progress=show("indexing"))
        labels = self._labels_of_people(written)
        if (labels[1:] < labels[:-1]).any():
            warn(
                f"people have other labels in {self.destination} than in {self.records.path}: a "
                f"{self.options.form} sorts them in another way; a head that was trained on the "
                "one set does not fit the other"
            )
        if self.options.verify:
            self._verify(written, labels, show("verifying"))
        elif FORMATS[self.options.form].in_order and isinstance(written, IndexedRecords):
            self._keep_checksums(written, np.array(journal.checksums()))

    def _order(self, start: int, stop: int) -> Int64Array:
        """The records that are written at places [start, stop)."""
        places = np.arange(start, stop, dtype=np.int64)
        return places if self.shuffled is None else self.shuffled(places)

    def _write(self, progress: Progress) -> None:
        writer = self._open_writer()
        try:
            if self.journal.position is not None:
                writer.resume(self.journal.position)
            else:
                self._save(WRITING, writer.commit())
            self._write_rest(writer, progress)
            self._save(FINISHING, writer.commit(), done=len(self.records))
            writer.finish()
        finally:
            writer.close()

    def _write_rest(self, writer: RecordWriter, progress: Progress) -> None:
        done = safe = self.journal.done
        last = time.monotonic()
        chunks = chunks_of(len(self.records), self._order, start=done)
        for numbers, images in mapped(self._read, chunks, threads=self.threads):
            self._add(writer, numbers, images)
            done += len(images)
            progress(done, len(self.records))
            due = time.monotonic() - last > self.options.commit_seconds
            if due or done - safe >= self.options.commit_records:
                self._save(WRITING, writer.commit(), done=done)
                safe, last = done, time.monotonic()

    def _read(self, numbers: Int64Array) -> tuple[Int64Array, list[bytes]]:
        return numbers, [self._image(number) for number in numbers.tolist()]

    def _image(self, record: int) -> bytes:
        try:
            return self.records.read(record)
        except OSError as error:
            raise DataError(
                f"{self.records.describe(record)}: {error.strerror or error}; leave it out: "
                "manyface data check SRC --keep FILE, then convert with --keep FILE"
            ) from None

    def _add(self, writer: RecordWriter, numbers: Int64Array, images: list[bytes]) -> None:
        people = labels_of(self.records.first_images, numbers).tolist()
        for number, person, image in zip(numbers.tolist(), people, images, strict=True):
            writer.add(image, person=person, name=self.names.of(number, person, image))
        self.journal.add([checksum_of(image) for image in images])

    def _save(self, stage: str, position: Position | None, done: int | None = None) -> None:
        done = self.journal.done if done is None else done
        self.journal.save(self.job, done=done, position=position, stage=stage)

    def _open_writer(self) -> RecordWriter:
        options: dict[str, Any] = {"identity_names": self.names.people}
        if self.options.form == "recordio":
            options |= {
                "headers": self.options.headers,
                "image_size": width_of_images(self.records),
            }
        return FORMATS[self.options.form].open(self.destination, **options)

    def _verify(self, written: Records, labels: Int64Array, progress: Progress) -> None:
        """The same images of the same people; their checksums go into the index."""
        if len(written) != len(self.records):
            raise DataError(
                f"{self.destination} has {len(written)} records and not {len(self.records)}: "
                "it was not written well; remove it and try again"
            )
        checksums = np.zeros(len(written), np.uint32)
        keys = np.zeros(len(written), np.uint64)
        done = 0
        for numbers, sums in mapped(
            lambda part: (part, [checksum_of(written.read(i)) for i in part.tolist()]),
            chunks_of(len(written), in_storage_order(written)),
            threads=self.threads,
        ):
            part = slice(done, done + len(sums))
            checksums[part] = sums
            people = labels[labels_of(written.first_images, numbers)].astype(np.uint64)
            keys[part] = people << np.uint64(32) | checksums[part]
            done = part.stop
            progress(done, len(written))
        theirs = self._keys()
        keys.sort()  # in place: there may be billions
        theirs.sort()
        if not np.array_equal(keys, theirs):
            raise DataError(
                f"{self.destination} does not hold what {self.records.path} does: a person's "
                "images differ; the disk or the memory may be faulty; remove it and try again"
            )
        if isinstance(written, IndexedRecords):
            self._keep_checksums(written, checksums)

    def _keys(self) -> npt.NDArray[np.uint64]:
        """Person and checksum of each record that was read, uint64 [N]."""
        checksums, keys = self.journal.checksums(), np.empty(len(self.records), np.uint64)
        for start in range(0, len(keys), 1 << 16):
            numbers = self._order(start, min(start + (1 << 16), len(keys)))
            part = slice(start, start + len(numbers))
            people = labels_of(self.records.first_images, numbers).astype(np.uint64)
            keys[part] = people << np.uint64(32) | checksums[part]
        return keys

    def _labels_of_people(self, written: Records) -> Int64Array:
        """For each person of the new set, which one of the old: by name, or by number."""
        label_of = {name: label for label, name in enumerate(self.names.people)}
        names = list(written.identity_names)
        if not all(name in label_of for name in names):
            label_of = {str(label): label for label in range(len(self.names.people))}
        try:
            return np.array([label_of[name] for name in names], np.int64)
        except KeyError as error:
            raise DataError(
                f"{self.destination} has a person {error} whom {self.records.path} does not have"
            ) from None

    @staticmethod
    def _keep_checksums(written: IndexedRecords, checksums: UInt32Array) -> None:
        keep_index(written.index.with_checksums(checksums), written.store)


def _check_options(records: Records, destination: Path, options: ConvertOptions) -> None:
    if options.shuffle is not None and not FORMATS[options.form].in_order:
        raise DataError(f"a {options.form} has no order to shuffle; leave out --shuffle")
    if options.headers and (options.form != "recordio" or options.shuffle is not None):
        raise DataError("header records are for RecordIO whose photos are in order (no --shuffle)")
    if options.headers:
        num_people = int(np.count_nonzero(np.diff(records.first_images)))
        check_headers(destination, len(records), num_people)


def _check_free(places: list[Path]) -> None:
    """Nothing is there, neither finished nor begun."""
    for path in [*places, *map(draft_of, places)]:
        if (path.is_file() and path.stat().st_size) or (path.is_dir() and any(path.iterdir())):
            raise DataError(f"{path} is there already; remove it, or choose another name")


def _check_space(records: Records, destination: Path, done: int) -> None:
    left = (len(records) - done) / len(records)
    needed = round(_ROOM * left * total_bytes(records))
    free = shutil.disk_usage(destination.parent).free
    if needed > free:
        raise DataError(
            f"{destination} needs about {needed >> 20} MiB, and {free >> 20} MiB are free; make "
            "room, or choose another disk"
        )


def _job(records: Records, options: ConvertOptions) -> dict[str, Any]:
    """What makes a conversion the same one."""
    return {
        "source": fingerprint(records),
        "format": options.form,
        "order": options.shuffle,
        "headers": options.headers,
    }

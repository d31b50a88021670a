"""The index of a large set: how fast it is built, how large it is, how fast it opens.

    python benchmarks/record_index.py [--records 100000000 --identities 10000000 --rec 5000000]

Labels first: a store that only says where records lie and whose they are (sizes of identities
drawn from a long tail, records in random order), so that what is timed is the index. Then a real
`.rec` and `.idx` of `--rec` records with images of 64 bytes, written here and scanned. Each in a
process of its own; its peak of anonymous memory is reported. Times to open and to read the labels
of 1,024 random records are medians of 20.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from provenance import write_result

from manyface.base.progress import Progress, no_progress
from manyface.data.records.index import RecordIndex, build_index
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import HEADER, frame
from manyface.data.records.store import Faults, Found, RecordStore

CHUNK = 1 << 20


class LabelStore(RecordStore):
    """`count` records of `identities` people and no images."""

    kind = "labels"

    def __init__(self, count: int, identities: int) -> None:
        super().__init__(Path("labels"))
        self.count, self.identities = count, identities

    @classmethod
    def recognise(cls, path: Path, head: bytes) -> None:
        return None

    def fingerprint(self) -> str:
        return "labels"

    def scan(self, faults: Faults, progress: Progress) -> Iterator[Found]:
        rng = np.random.default_rng(0)
        for start in range(0, self.count, CHUNK):
            places = np.arange(start, min(start + CHUNK, self.count), dtype=np.uint64)
            people = (rng.random(len(places)) ** 2 * self.identities).astype(np.int64)
            yield Found(places, np.full(len(places), 6000, np.uint32), people)

    def read(self, place: int, size: int) -> bytes:
        raise OSError("there are no images")

    def describe(self, place: int) -> str:
        return str(place)


def write_rec(path: Path, count: int) -> None:
    """Records of 64 bytes of image, 10 to a person, in random order."""
    people = np.random.default_rng(0).permutation(count) // 10
    offset, image = 0, bytes(64)
    with path.open("wb") as records, path.with_suffix(".idx").open("wb") as index:
        for key, person in enumerate(people.tolist()):
            index.write(b"%d\t%d\n" % (key, offset))
            offset += records.write(frame(HEADER.pack(0, float(person), key, 0) + image))


def measure(store: RecordStore, folder: Path) -> dict[str, Any]:
    """Build, save, open."""
    before = time.perf_counter()
    index = build_index(store, progress=no_progress)
    built = time.perf_counter()
    path = folder / "index"
    index.save(path)
    saved = time.perf_counter()
    count, people = len(index), len(index.identity_names)
    per_record = (
        sum(getattr(index, name).nbytes for name in ("places", "sizes", "labels"))
        + 4 * count
        + index._ranks.nbytes
    )  # 4: the checksum, once it is known
    grouping = index.starts.nbytes + index._order.nbytes
    opened = [_seconds_to_open(path, count) for _ in range(20)]
    return {
        "records": count,
        "identities": people,
        "build_seconds": built - before,
        "records_per_minute": 60 * count / (built - before),
        "save_seconds": saved - built,
        "bytes_per_record": per_record / count,
        "identity_index_bytes": grouping,
        "open_seconds": statistics.median(o for o, _ in opened),
        "labels_of_1024_seconds": statistics.median(r for _, r in opened),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _seconds_to_open(path: Path, count: int) -> tuple[float, float]:
    places = np.random.default_rng().integers(0, count, 1024)
    before = time.perf_counter()
    index = RecordIndex.load(path)
    opened = time.perf_counter()
    index.labels[places].sum()
    return opened - before, time.perf_counter() - opened


def of_labels(records: int, identities: int, folder: Path) -> dict[str, Any]:
    """Of labels alone."""
    return measure(LabelStore(records, identities), folder)


def of_rec(folder: Path) -> dict[str, Any]:
    """Of the file that lies there."""
    return measure(RecordIOStore(folder / "train.rec"), folder)


def main() -> None:
    """Measure and write results/record_index.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000_000)
    parser.add_argument("--identities", type=int, default=10_000_000)
    parser.add_argument("--rec", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_rec(folder / "train.rec", options.rec)
        for case, job in {
            "labels": (of_labels, options.records, options.identities, folder),
            "recordio": (of_rec, folder),
        }.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found[case] = pool.submit(*job).result()
            print(case, {k: round(v, 5) for k, v in found[case].items()})
    write_result("record_index", {"cases": found})


if __name__ == "__main__":
    main()

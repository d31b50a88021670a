"""Files that were made to hurt: what the fuzzer and a careful reader found, kept."""

import struct

from manyface.data.records.files import PlainFile
from manyface.data.records.index import build_index
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import HEADER, frame, read_index, walk
from manyface.data.records.store import Faults


def test_header_records_that_name_no_numbers(tmp_path):
    """Fuzz cases 197 and 522: NaN and 1e38 where the number of photos should be."""
    path = tmp_path / "a.rec"
    odd = struct.pack("<ff", float("nan"), 1e38)
    path.write_bytes(
        frame(HEADER.pack(0, 1, 0, 0) + b"image") + frame(HEADER.pack(2, 0, 0, 0) + odd)
    )
    assert len(build_index(RecordIOStore(path))) == 1


def test_an_index_with_one_very_long_word(tmp_path):
    """As an array of words it would take the longest one's length for each: 100 GB."""
    path = tmp_path / "a.idx"
    path.write_bytes(b"1\t2\n" * 500_000 + b"9" * 1_000_000 + b"\t0\n")
    assert read_index(path) is None
    path.write_bytes(b"1\t2\n" * 500_000 + b"x" * 1_000_000 + b"\t0\n")
    assert read_index(path) is None


def test_many_short_stretches_of_junk_cost_little_each(tmp_path, monkeypatch):
    """A block of 1 MiB for each would be the square of the file's length."""
    path = tmp_path / "a.rec"
    path.write_bytes((frame(b"") + b"junk") * 20_000)
    taken = []
    read = PlainFile.read
    monkeypatch.setattr(PlainFile, "read", lambda *which: taken.append(which[2]) or read(*which))
    faults = Faults()
    assert sum(1 for _ in walk(PlainFile(path), faults)) == 20_000
    assert faults.count == 20_000
    assert sum(taken) < 50 * path.stat().st_size

"""What every format of records has to do, for the tests of each."""

import contextlib
import multiprocessing
import os
import pickle
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from manyface.base.errors import DataError
from manyface.data.records import open_records

PEOPLE = ["Ann", "Bob Lee", "José"]


def faces(count=23, *, people=3):
    """`count` records (image, person, name) that hold no image but begin like one, of odd sizes."""
    return [
        (b"\xff\xd8" + bytes([i]) * (i * 397 % 9000), i * 7 % people, f"{i:03d}.jpg")
        for i in range(count)
    ]


def write(writer, records):
    for image, person, name in records:
        writer.add(image, person=person, name=name)


def content(records):
    """Person -> [(name, image)], sorted."""
    starts = records.first_images
    return {
        person: sorted(
            (records.file_name(i), records.read(i)) for i in range(starts[p], starts[p + 1])
        )
        for p, person in enumerate(records.identity_names)
    }


def expected(records, people=PEOPLE):
    found = {}
    for image, person, name in records:
        found.setdefault(people[person], []).append((name, image))
    return {person: sorted(found[person]) for person in people if person in found}


def check_resume(make, path, *, per_commit=5):
    """Stop after every commit, and after the one that followed it; go on in a new writer."""
    records = faces()
    writer = make(path)
    position = writer.commit()
    for start in range(0, len(records), per_commit):
        for lost in range(3):  # ends without a commit, with one that nobody heard of, and well
            write(writer, records[start : start + per_commit])
            if lost == 0:
                write(writer, [(b"\xff\xd8lost" * 3000, 0, "lost.jpg")] * 3)
            reached = writer.commit() if lost else position
            position = reached if lost == 2 else position
            writer.close()
            writer = make(path)
            writer.resume(position)
    assert not path.exists()
    writer.finish()
    assert content(open_records(path)) == expected(records)


def read_all(records):
    return [records.read(i) for i in range(len(records))]


def read_damaged(path):
    """Whatever is there: read, left out, or refused; the only errors are ours."""
    with contextlib.suppress(DataError):
        records = open_records(path, warn=lambda _: None)
        for i in range(len(records)):
            with contextlib.suppress(OSError):
                assert isinstance(records.read(i), bytes)


def check_reads_ahead(monkeypatch, records):
    """What is asked of the disk for some records holds all that reading them reads."""
    asked, read = [], []
    pread = os.pread

    def noted(file, count, offset):
        read.append((file, offset, offset + count))
        return pread(file, count, offset)

    def advised(file, offset, count, _advice):
        asked.append((file, offset, offset + count))

    some = np.arange(1, len(records), 3)
    read_all(records)  # files are open
    monkeypatch.setattr(os, "posix_fadvise", advised)
    monkeypatch.setattr(os, "pread", noted)
    records.will_read(some)
    for i in some.tolist():
        records.read(i)
    assert asked
    assert read
    for file, start, stop in read:
        assert any(file == f and first <= start and stop <= end for f, first, end in asked)


def check_concurrent(records, *, methods=("fork",)):
    """Threads, copies by pickle, forked and spawned processes: all read the same."""
    alone = read_all(records)
    with ThreadPoolExecutor(8) as pool:
        order = list(range(len(records))) * 5
        assert list(pool.map(records.read, order)) == alone * 5
    assert read_all(pickle.loads(pickle.dumps(records))) == alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        for method in methods:
            with multiprocessing.get_context(method).Pool(1) as processes:
                assert processes.apply(read_all, [records]) == alone
        assert _bytes_in_fork(records) == len(b"".join(alone))


def _bytes_in_fork(records):
    """Of all records, as a child reads them that inherits the open files."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.write(send, str(len(b"".join(read_all(records)))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(receive, 100))


def lfw(tar_path: Path, count: int | None):
    """The first records of LFW as (image, person, name), and the names of people."""
    people: dict[str, int] = {}
    records = []
    with tarfile.open(tar_path) as tar:
        for member in tar:
            if not member.name.endswith(".jpg"):
                continue
            _, person, name = member.name.split("/")
            label = people.setdefault(person, len(people))
            records.append((tar.extractfile(member).read(), label, name))
            if len(records) == count:
                break
    return records, list(people)


def check_lfw(make, path, tar_path, count):
    """`make(path, people)` -> writer: every JPEG comes back with its person and its name."""
    records, people = lfw(tar_path, count)
    writer = make(path, people)
    write(writer, records)
    writer.finish()
    assert content(open_records(path)) == expected(records, people)

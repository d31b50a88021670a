"""Checking a set: every seeded defect found, nothing else; keep-lists; nothing changed."""

import hashlib
import io
import json
import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, face, smooth_pixels, write_folder, write_recordio

from manyface.cli.program import main
from manyface.data.records import open_records
from manyface.data.records.kept import select_kept
from manyface.data.records.recordio import RecordIOStore
from manyface.data.records.recordio_frames import HEADER, frame
from manyface.data.tools import duplicates
from manyface.data.tools.check import CheckOptions, check_records
from manyface.data.tools.defects import COLUMNS, KINDS
from manyface.data.tools.near import MAX_BITS, near_pairs


def check(records, **options):
    """The cases: (kind, record name or identity), and the object that counted them."""
    report = io.StringIO()
    cases = check_records(
        records, CheckOptions(**options), show=lambda name: lambda *news: None, report=report
    )
    lines = [line.split("\t") for line in report.getvalue().splitlines()]
    assert tuple(lines[0]) == COLUMNS
    assert Counter(line[0] for line in lines[1:]) == cases.counts
    return {(kind, where or identity) for kind, _, _, identity, where, _ in lines[1:]}, cases


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def bomb() -> bytes:
    """A PNG that claims 60,000 x 60,000 pixels."""
    data = bytearray(encoded(smooth_pixels(900), "PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    return bytes(data)


def damaged_scan(data: bytes) -> bytes:
    """A JPEG with an undecodable stretch in its middle, and with its end."""
    middle = len(data) // 2
    return data[:middle] + b"\xff\xc4" + data[middle + 2 :]


def quality(seed: int, value: int) -> bytes:
    return encoded(smooth_pixels(seed), quality=value)


def seeded_folder(root: Path) -> tuple[Path, set[tuple[str, str]]]:
    """A folder with a defect of every kind that a folder can have, and what should be found."""
    pixels = smooth_pixels(1)
    people = {
        f"clean{k}": {f"{i}.jpg": face(100 * k + i) for i in range(1, 6)} for k in range(1, 9)
    }
    people["bad"] = {
        "ok.jpg": face(2001),
        "empty.jpg": b"",
        "broken.jpg": b"not an image at all",
        "html.jpg": b"<html>not found</html>",
        "middle.jpg": damaged_scan(face(2002)),
        "cut.jpg": face(2003)[:-500],
        "noend.jpg": face(2004)[:-2],
        "cut.png": encoded(smooth_pixels(2005), "PNG")[:-4000],
        "bomb.png": bomb(),
        "black.jpg": encoded(np.zeros((112, 112, 3), np.uint8)),
        "small.jpg": face(2006, size=96),
        "grey.jpg": encoded(smooth_pixels(2007), mode="L"),
        "alpha.png": encoded(smooth_pixels(2008), "PNG", mode="RGBA"),
        "cmyk.jpg": encoded(smooth_pixels(2009), mode="CMYK"),
        "junk.jpg": face(2010) + b"trailing",
        "odd.jpg": face(2011)[:-2] + b"stray" + face(2011)[-2:],
    }
    people["twins"] = {"1.jpg": face(3001), "2.jpg": face(3001), "3.jpg": face(3002)}
    people["thief"] = {"1.jpg": face(101), "2.jpg": face(3003)}  # of clean1
    people["pixels"] = {
        "1.png": encoded(pixels, "PNG"),
        "2.bmp": encoded(pixels, "BMP"),
        "3.jpg": face(3004),
    }
    people["pixelthief"] = {
        "1.png": encoded(smooth_pixels(3010), "PNG"),
        "2.jpg": face(3011),
    }
    people["pixelvictim"] = {
        "1.bmp": encoded(smooth_pixels(3010), "BMP"),
        "2.jpg": face(3012),
    }
    people["saved"] = {"1.jpg": quality(3020, 95), "2.jpg": quality(3020, 40)}
    people["nearthief"] = {"1.jpg": quality(201, 50), "2.jpg": face(3021)}  # of clean2
    people["single"] = {"1.jpg": face(3030)}
    write_folder(root, people)
    (root / "nobody").mkdir()
    (root / "bad" / "gone.jpg").symlink_to(root / "no such file")
    expected = {
        ("empty", "bad/empty.jpg"),
        ("broken", "bad/broken.jpg"),
        ("broken", "bad/html.jpg"),
        ("broken", "bad/middle.jpg"),
        ("truncated", "bad/cut.jpg"),
        ("truncated", "bad/noend.jpg"),
        ("truncated", "bad/cut.png"),
        ("huge", "bad/bomb.png"),
        ("constant", "bad/black.jpg"),
        ("wrong-size", "bad/small.jpg"),
        ("not-rgb", "bad/grey.jpg"),
        ("not-rgb", "bad/alpha.png"),
        ("not-rgb", "bad/cmyk.jpg"),
        ("trailing", "bad/junk.jpg"),
        ("odd-bytes", "bad/odd.jpg"),
        ("unreadable", "bad/gone.jpg"),
        ("duplicate-within", "twins/2.jpg"),
        ("duplicate-across", "clean1/1.jpg"),
        ("duplicate-across", "thief/1.jpg"),
        ("same-pixels-within", "pixels/2.bmp"),
        ("same-pixels-across", "pixelthief/1.png"),
        ("same-pixels-across", "pixelvictim/1.bmp"),
        ("near-within", "saved/2.jpg"),
        ("near-across", "nearthief/1.jpg"),
        ("identity-single", "single"),
        ("identity-empty", "nobody"),
    }
    return root, expected


@pytest.mark.parametrize("threads", [1, 3])
def test_every_seeded_defect_of_a_folder_and_nothing_else(tmp_path, threads):
    root, expected = seeded_folder(tmp_path / "faces")
    before = fingerprints(root)
    found, cases = check(open_records(root, warn=lambda text: None), threads=threads)
    assert found == expected
    assert len({kind for kind, _ in found}) >= 12
    assert fingerprints(root) == before
    names = {cases.name(record) for record in cases.dropped}
    assert names == {name for kind, name in expected if KINDS[kind].drops}


def photo(label, seed, *, key=0):
    return HEADER.pack(0, label, key, 0) + face(seed)


def header(first, end, *, key):
    return HEADER.pack(2, 0, key, 0) + struct.pack("<ff", first, end)


def write_rec(path, payloads, *, keys=None, only=None):
    data, lines = b"", []
    for number, payload in enumerate(payloads):
        if only is None or number in only:
            key = number if keys is None else keys[number]
            lines.append(f"{key}\t{len(data)}\n")
        data += frame(payload)
    path.write_bytes(data)
    path.with_suffix(".idx").write_text("".join(lines))
    return path


def kinds_of(path, **options):
    found, cases = check(open_records(path, warn=lambda text: None), **options)
    return {kind: cases.counts[kind] for kind, _ in found}


def two_each(labels, *, first=0):
    return [photo(label, 10 * i + k) for i, label in enumerate(labels, first) for k in range(2)]


def test_a_clean_recordio_has_no_defect(tmp_path):
    assert kinds_of(write_rec(tmp_path / "a.rec", two_each([0, 1, 2]))) == {}


def test_labels(tmp_path):
    payloads = [
        *two_each([0, 1, 4, 2**24, 2**24 + 2]),
        *[photo(label, 900 + i) for i, label in enumerate([0.5, -1, float("nan"), float("inf")])],
    ]
    kinds = kinds_of(write_rec(tmp_path / "a.rec", payloads))
    assert kinds == {"label": 4, "label-float32": 1, "label-gap": 3}


def test_a_list_has_gaps_too(tmp_path):
    lines = []
    for label in (1, 2, 5):
        for k in range(2):
            (tmp_path / f"{label}{k}.jpg").write_bytes(face(10 * label + k))
            lines.append(f"{label}{k}.jpg\t{label}\n")
    (tmp_path / "faces.txt").write_text("".join(lines))
    assert kinds_of(tmp_path / "faces.txt") == {"label-gap": 2}


def with_headers(photos=4, identities=2, *, spans=((1, 3), (3, 5))):
    """insightface's flavour, by its own order: photos 1 to 4, record 0, identities."""
    payloads = [photo(i // 2, 10 + i, key=i + 1) for i in range(4)]
    payloads.append(header(photos + 1, photos + 1 + identities, key=0))
    payloads += [header(a, b, key=photos + 1 + i) for i, (a, b) in enumerate(spans)]
    keys = [1, 2, 3, 4, 0, *range(photos + 1, photos + 1 + len(spans))]
    return payloads, keys


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, {}),
        ({"photos": 9}, {"header": 1}),
        ({"identities": 3}, {"header": 1}),
        ({"identities": 3, "spans": ((1, 3), (3, 5), (5, 5))}, {"identity-empty": 1}),
    ],
)
def test_header_records(tmp_path, options, kinds):
    payloads, keys = with_headers(**options)
    assert kinds_of(write_rec(tmp_path / "a.rec", payloads, keys=keys)) == kinds


def test_header_records_without_the_first_and_in_the_place_of_a_photo(tmp_path):
    payloads, keys = with_headers()
    del payloads[4], keys[4]
    assert kinds_of(write_rec(tmp_path / "a.rec", payloads, keys=keys)) == {"header": 1}
    payloads, keys = with_headers()
    payloads[1] = header(0, 0, key=2)
    kinds = kinds_of(write_rec(tmp_path / "b.rec", payloads, keys=keys))
    assert kinds == {"header": 2, "identity-single": 1}


def test_index_files(tmp_path):
    path = write_rec(tmp_path / "a.rec", two_each([0, 1]), only={0, 1, 3})
    assert kinds_of(path) == {"index-file": 1, "identity-single": 1}
    path = write_rec(tmp_path / "short.rec", two_each([0, 1]), only={0, 1, 2})
    assert kinds_of(path) == {"index-file": 1}  # it is not used, and all records are there
    path.with_suffix(".idx").write_text("0\t0\n1\t17\n")
    assert kinds_of(path) == {"index-file": 1}


def test_stretches_without_a_record(tmp_path):
    path = write_rec(tmp_path / "a.rec", two_each([0, 1, 2]))
    data = bytearray(path.read_bytes())
    data[0:0] = frame(photo(0, 77)) + b"junk" * 5
    path.write_bytes(data)
    path.with_suffix(".idx").unlink()
    assert kinds_of(path) == {"left-out": 1}


def test_checksums_are_kept_and_find_damage(tmp_path):
    path = write_recordio(
        tmp_path / "a.rec",
        {name: {f"{i}.jpg": face(seed + i) for i in range(3)} for name, seed in
         (("Ann", 10), ("Bob", 20))},
    )  # fmt: skip
    assert kinds_of(path, keep_checksums=False) == {}
    assert open_records(path).index.checksums is None
    assert kinds_of(path) == {}
    records = open_records(path)
    assert records.index.checksums is not None
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[int(records.index.places[3]) + 700] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # damage does not tell the time
    assert kinds_of(path) == {"damaged": 1}


def test_checksums_of_records_that_could_not_be_read_stay_unknown(tmp_path, monkeypatch):
    people = {"Ann": {f"{i}.jpg": face(10 + i) for i in range(3)}}
    path = write_recordio(tmp_path / "a.rec", people)
    records, read = open_records(path), RecordIOStore.read

    def failing(store, place, size):
        if place == int(records.index.places[1]):
            raise OSError("the network is away")
        return read(store, place, size)

    with monkeypatch.context() as patch:
        patch.setattr(RecordIOStore, "read", failing)
        assert kinds_of(path) == {"unreadable": 1}
    assert (open_records(path).index.checksums != 0).tolist() == [True, False, True]
    assert open_records(path).read(1) == face(11)
    assert kinds_of(path) == {}
    assert open_records(path).index.checksums.all()


def test_checksums_of_files_that_changed_meanwhile_are_not_kept(tmp_path):
    path = write_recordio(tmp_path / "a.rec", {"Ann": {f"{i}.jpg": face(i) for i in range(3)}})
    records = open_records(path)
    os.utime(path, ns=(1, 1))
    check(records)
    assert open_records(path).index.checksums is None


def test_a_picture_that_is_there_very_often(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST_TOLD", 3)
    sign = {f"{i}.jpg": face(1) for i in range(4)}
    root = write_folder(tmp_path / "f", {f"p{k}": sign for k in range(5)})
    report = io.StringIO()
    cases = check_records(
        open_records(root), CheckOptions(), show=lambda name: lambda *news: None, report=report
    )
    assert cases.counts == {"duplicate-within": 15, "duplicate-across": 5}
    assert cases.dropped == set(range(20))
    lines = [line.split("\t") for line in report.getvalue().splitlines()[1:]]
    assert [(line[0], line[2], line[5]) for line in lines] == [
        ("duplicate-within", "1", "as p0/0.jpg"),
        ("duplicate-within", "2", "as p0/0.jpg"),
        ("duplicate-within", "3", "as p0/0.jpg"),
        ("duplicate-across", "0", "as p1/0.jpg"),
        ("duplicate-across", "4", "as p0/0.jpg"),
        ("duplicate-across", "8", "as p0/0.jpg"),
    ]


def test_the_property_of_another_set(tmp_path):
    people = {name: {f"{i}.jpg": face(10 * k + i) for i in range(2)} for k, name in enumerate("AB")}
    path = write_recordio(tmp_path / "a.rec", people)
    (tmp_path / "property").write_text("9,112,112\n")
    assert kinds_of(path) == {"identity-empty": 1}
    write_rec(tmp_path / "b.rec", [photo(0, 1)])
    assert kinds_of(path) == {}


def test_keep_list_of_a_folder_fits_what_it_is_converted_to(tmp_path, capsys):
    root, _ = seeded_folder(tmp_path / "faces")
    keep, report, facts = (tmp_path / name for name in ("keep.txt", "cases.tsv", "facts.json"))
    words = ["--keep", keep, "--report", report, "--json", facts, "--drop", "near-across"]
    assert main(["data", "check", str(root), *map(str, words)]) == 3
    out = capsys.readouterr().out
    assert "duplicate-across" in out
    found = json.loads(facts.read_text())
    assert found["left_out_by_keep_list"] == len(keep.read_text().splitlines()) - 1
    assert len(report.read_text().splitlines()) == 1 + sum(
        kind["count"] for kind in found["found"].values()
    )
    records = select_kept(open_records(root, warn=lambda text: None), keep)
    assert (
        len(records)
        == len(open_records(root, warn=lambda text: None)) - found["left_out_by_keep_list"]
    )
    remaining, _ = check(records)
    assert not {kind for kind, _ in remaining if KINDS[kind].drops}


def test_clean_set_exits_with_0(write_faces, capsys):
    assert main(["data", "check", str(write_faces({"Ann": 2, "Bob": 2}, size=112))]) == 0
    assert "no defects" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--size", "x"], ["--size", "0x5"], ["--size", "5x0"],
                                   ["--drop", "nothing"]])  # fmt: skip
def test_wrong_options_are_one_line(write_faces, capsys, words):
    assert main(["data", "check", str(write_faces({"Ann": 2})), *words]) == 2
    assert capsys.readouterr().err.startswith("error: --")


def test_a_wished_size(write_faces):
    records = open_records(write_faces({"Ann": 2, "Bob": 2}, size=112))
    assert check(records, size=(112, 112))[0] == set()
    assert {kind for kind, _ in check(records, size=(96, 112))[0]} == {"wrong-size"}


def test_near_pairs_are_those_of_a_full_search():
    rng = np.random.default_rng(0)
    prints = rng.integers(0, 2**64, (400, 2), dtype=np.uint64)
    copies = prints[rng.integers(0, 400, 300)]
    for row in copies:
        for bit in rng.choice(128, rng.integers(0, 9), replace=False):
            row[bit // 64] ^= np.uint64(1 << (int(bit) % 64))
    prints = np.concatenate([prints, copies])
    bits = np.bitwise_count(prints[:, None] ^ prints[None]).sum(axis=2)
    expected = {(i, j) for i, j in np.argwhere(bits <= MAX_BITS).tolist() if i < j}
    assert len(expected) > 150
    assert set(map(tuple, near_pairs(prints).tolist())) == expected


def test_no_pictures_no_pairs():
    assert near_pairs(np.zeros((0, 2), np.uint64)).shape == (0, 2)
    assert near_pairs(np.zeros((1, 2), np.uint64)).shape == (0, 2)


def test_lfw_has_no_false_alarm(lfw_tar):
    """What is found is true: five photos that LFW has under two names, as its errata list."""
    found, cases = check(open_records(lfw_tar))
    assert {kind for kind, _ in found} == {"near-within", "near-across", "identity-single"}
    assert (cases.counts["near-across"], cases.counts["near-within"]) == (5, 15)
    assert cases.counts["identity-single"] == 4069
    assert cases.dropped == set()

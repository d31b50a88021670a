"""Photos of --data: a fingerprint beside the results, and others are refused."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from manyface.base.errors import DataError
from manyface.data.lists import PairList, write_pairs
from manyface.report.runs import Run
from manyface.studies.catalog import studies_of
from manyface.studies.jobs import Job, jobs_of
from manyface.studies.ledger import Ledger
from manyface.studies.photos import look_at
from manyface.studies.scales import find_scale
from manyface.studies.whole import Folder, looked_at

SMALL = find_scale("small")
RATE = studies_of(SMALL)["rate"]
NAMES = "ABCDEFGHIJKL"
TABLE = next(table for table in RATE.tables if table.recipe == "lfw")


def photo(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (colour, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def lfw(root: Path, names: str = NAMES) -> Path:
    """People of two photos each; all are trained on and in a pair."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in (1, 2):
            (root / name / f"{name}_{number:04d}.jpg").write_bytes(photo(number))
    (root / "lfw-lists").mkdir()
    (root / "lfw-lists" / "peopleDevTrain.txt").write_text("\n".join(names))
    first = [(name, 1) for name in names]
    same, other = [(name, 2) for name in names], [*first[1:], first[0]]
    pairs = PairList([*first, *first], [*same, *other], np.arange(2 * len(names)) < len(names),
                     np.zeros(2 * len(names), np.int64))  # fmt: skip
    (root / "lfw-lists" / "pairsDevTest.txt").write_text(write_pairs(pairs))
    return root


def run() -> Run:
    folds = SimpleNamespace(correct=np.ones(8, bool))
    row = {
        "verification_accuracy": 1.0,
        "auc": 1.0,
        "tar_at_far": {},
        "steps": 1,
        "batch_size": 1,
        "num_identities": 4,
        "precision": "fp32",
        "device": "cpu",
        "commit": None,
    }
    return cast(Run, SimpleNamespace(scores={"pairs": SimpleNamespace(folds=folds)}, row=row))


def job(data: Path) -> Job:
    return jobs_of(TABLE, SMALL, data=data)[0]


def opened(folder: Path, data: Path) -> Ledger:
    """The results in `folder`, as a command that is given `data` has them."""
    return looked_at([RATE], Folder(folder, SMALL, data)).ledger()


def test_results_are_of_one_set_of_photos(tmp_path: Path) -> None:
    path, data = tmp_path / "results.json", lfw(tmp_path / "a")
    ledger = opened(tmp_path, data)
    assert not path.exists()
    synthetic = jobs_of(RATE.tables[0], SMALL)[0]
    ledger.add(synthetic, run(), {})
    assert "photos" not in json.loads(path.read_text())
    ledger.add(job(data), run(), {})
    kept = json.loads(path.read_text())["photos"]["lfw"]
    assert (kept["people"], kept["images"]) == (12, 24)
    assert opened(tmp_path, lfw(tmp_path / "same")).photos == {"lfw": kept}
    words = "expected 12 people with 24 images .*, got 13 people with 26 images .* -d"
    with pytest.raises(DataError, match=words):
        opened(tmp_path, lfw(tmp_path / "more", NAMES + "M"))
    with pytest.raises(DataError, match="is of other photos than these for the tables of lfw"):
        opened(tmp_path, lfw(tmp_path / "others", NAMES[1:] + "M"))
    assert Ledger(path).photos == {"lfw": kept}  # without --data


def test_results_of_before_it_was_kept_get_a_fingerprint(tmp_path: Path) -> None:
    data = lfw(tmp_path / "a")
    Ledger(tmp_path / "results.json").add(job(data), run(), {})
    ledger = opened(tmp_path, data)
    assert ledger.photos == {}
    ledger.add(job(data), run(), {})
    assert ledger.photos["lfw"]["people"] == 12


def test_studies_without_photos_keep_to_those_of_the_results(tmp_path: Path) -> None:
    data, conflict = lfw(tmp_path / "a"), studies_of(SMALL)["conflict"]
    opened(tmp_path, data).add(job(data), run(), {})
    with pytest.raises(DataError, match="other photos"):
        looked_at([conflict], Folder(tmp_path, SMALL, lfw(tmp_path / "b", NAMES[1:] + "M")))


def test_photos_of_pairs_that_cannot_be_read(tmp_path: Path) -> None:
    data = lfw(tmp_path)
    for number in (1, 2):
        (data / "A" / f"A_{number:04d}.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"photos for the tables of lfw: .*A_000"):
        look_at([TABLE], SMALL, data)


def test_lists_that_are_missing(tmp_path: Path) -> None:
    data = lfw(tmp_path)
    (data / "lfw-lists" / "pairsDevTest.txt").unlink()
    with pytest.raises(DataError, match=r"tables of lfw: evaluation\.pairs: .*pairsDevTest"):
        look_at([TABLE], SMALL, data)

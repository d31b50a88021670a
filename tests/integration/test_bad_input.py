"""Whatever a folder of faces holds, `manyface train` ends in a run or in one clear line."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyface.base.random import numpy_generator
from manyface.cli import main

Train = Callable[..., tuple[int, list[str]]]
SMALL = [
    "data.image_size=32",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "schedule.steps=2",
    "train.batch_size=8",
    "run.name=test",
]


def photo(number: int, mode: str = "RGB") -> Image.Image:
    pixels = numpy_generator(number, "photo").integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def make_faces(folder: Path, *, people: int = 4, photos: int = 6) -> Path:
    for person in range(people):
        (folder / f"person {person}").mkdir(parents=True)
        for number in range(photos):
            name = folder / f"person {person}" / f"{number}.jpg"
            photo(100 * person + number).save(name)
    return folder


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run a small training on a folder: exit code and the lines on stderr."""

    def call(path: Path, *overrides: str) -> tuple[int, list[str]]:
        recipe = tmp_path / "small.toml"
        recipe.write_text("")
        words = ["train", str(recipe)]
        runs = f"run.directory={tmp_path / 'runs'}"
        for override in [*SMALL, runs, f"data.path={path}", *overrides]:
            words += ["--set", override]
        code = main(words)
        return code, capsys.readouterr().err.splitlines()

    return call


def assert_refused(outcome: tuple[int, list[str]], *words: str) -> None:
    code, lines = outcome
    assert code == 1, lines
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert all(word in lines[0] for word in words), lines[0]


def assert_trained(outcome: tuple[int, list[str]], *words: str) -> None:
    code, lines = outcome
    assert code == 0, lines
    assert not any("Traceback" in line for line in lines)
    assert all(word in "\n".join(lines) for word in words), lines


# Folders that cannot be trained on


def test_missing_path(train: Train, tmp_path: Path) -> None:
    assert_refused(train(tmp_path / "absent"), "absent")


def test_empty_folder(train: Train, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    assert_refused(train(tmp_path / "faces"), str(tmp_path / "faces"))


def test_one_person(train: Train, tmp_path: Path) -> None:
    assert_refused(train(make_faces(tmp_path / "faces", people=1)), "one person only")


def test_folder_without_photos(train: Train, tmp_path: Path) -> None:
    for person in "ab":
        (tmp_path / "faces" / person).mkdir(parents=True)
        (tmp_path / "faces" / person / "notes.txt").write_text("no face")
    assert_refused(train(tmp_path / "faces"), str(tmp_path / "faces"))


def test_file_that_is_no_data_set(train: Train, tmp_path: Path) -> None:
    (tmp_path / "faces.tar").write_bytes(b"not a tar")
    assert_refused(train(tmp_path / "faces.tar"), "faces.tar")


def test_only_broken_photos(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    for path in faces.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8\xff broken")
    code, lines = train(faces)
    assert code == 1
    assert "Traceback" not in "\n".join(lines)
    assert lines[-1].startswith("error: ")
    assert "max_bad_share" in lines[-1]


def test_people_list_that_names_nobody(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    (tmp_path / "people.txt").write_text("Somebody Else\n")
    assert_refused(train(faces, f"data.people={tmp_path / 'people.txt'}"), "Somebody Else")


def test_output_that_cannot_be_written(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    (tmp_path / "file").write_text("in the way")
    assert_refused(train(faces, f"run.directory={tmp_path / 'file'}"), str(tmp_path / "file"))


# Oddities that are trained through


@pytest.mark.parametrize("damage", ["truncated", "no image", "empty"])
def test_single_bad_photo_is_counted(train: Train, tmp_path: Path, damage: str) -> None:
    faces = make_faces(tmp_path / "faces")
    bad = faces / "person 1" / "3.jpg"
    content = {"truncated": bad.read_bytes()[:200], "no image": b"hello", "empty": b""}[damage]
    bad.write_bytes(content)
    assert_trained(
        train(faces, "schedule.steps=6", "data.max_bad_share=0.5"), "warning", "person 1/3.jpg"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_photo(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    (faces / "person 1" / "3.jpg").chmod(0)
    assert_trained(train(faces, "schedule.steps=6", "data.max_bad_share=0.5"), "person 1/3.jpg")


def test_pngs_with_alpha_palette_and_16_bits(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    photo(1, "RGBA").save(faces / "person 0" / "alpha.png")
    photo(2, "P").save(faces / "person 1" / "palette.png")
    photo(3, "L").save(faces / "person 2" / "grey.png")
    deep = numpy_generator(4, "photo").integers(0, 2**16, (40, 40), dtype=np.uint16)
    Image.fromarray(deep).save(faces / "person 3" / "deep.png")
    slow = "head.learning_rate=1e-5"  # for so small a batch of so short embeddings
    outcome = train(faces, "schedule.steps=8", "data.max_bad_share=0", slow)
    assert_trained(outcome)
    assert not any("warning" in line for line in outcome[1])


def test_one_photo_per_person(train: Train, tmp_path: Path) -> None:
    outcome = train(make_faces(tmp_path / "faces", people=12, photos=1))
    assert_trained(outcome, "nobody", "more than one image")
    assert sum("more than one image" in line for line in outcome[1]) == 1


def test_files_beside_the_photos(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    (faces / "README.txt").write_text("who is who")
    (faces / "person 0" / "Thumbs.db").write_bytes(b"junk")
    (faces / "person 0" / ".hidden").mkdir()
    assert_trained(train(faces))


def test_path_with_spaces_and_unicode(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "Gesichter für Zoë 人 [x]")
    (faces / "person 0").rename(faces / "Ærøskøbing 名前")
    assert_trained(train(faces, f"run.directory={tmp_path / 'läufe 1'}"))
    assert (tmp_path / "läufe 1" / "test" / "result.json").is_file()


def test_tar_is_like_its_folder(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    with tarfile.open(tmp_path / "faces.tar", "w") as tar:
        tar.add(faces, "faces")
    assert_trained(train(tmp_path / "faces.tar"))


def test_tar_with_a_person_twice(train: Train, tmp_path: Path) -> None:
    """Appending to a tar writes a member a second time; the later one is the file."""
    faces = make_faces(tmp_path / "faces")
    again = io.BytesIO()
    photo(999).save(again, format="jpeg")
    with tarfile.open(tmp_path / "faces.tar", "w") as tar:
        tar.add(faces, "faces")
        info = tarfile.TarInfo("faces/person 0/0.jpg")
        info.size = again.tell()
        again.seek(0)
        tar.addfile(info, again)
    code, lines = train(tmp_path / "faces.tar")
    assert code in (0, 1)
    assert not any("defect" in line or "Traceback" in line for line in lines)


# Runs that are there already


def test_run_is_not_overwritten_unasked(train: Train, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "faces")
    assert_trained(train(faces))
    code, lines = train(faces)
    assert code == 2
    assert "--resume" in lines[0]
    assert "--force" in lines[0]


# Folders of class centers


def test_a_folder_of_centers_that_cannot_be_used(train: Train, tmp_path: Path) -> None:
    faces, folder = make_faces(tmp_path / "faces"), tmp_path / "centers"
    mapped = ("head.placement=file", f"head.placement_folder={folder}")
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    code, lines = train(faces, *mapped)
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("error: head.placement_folder: ")
    assert "thesis.txt" in lines[0]
    (folder / "thesis.txt").unlink()
    (folder / "weight.rows").write_bytes(b"half written, and of another shape")
    assert_trained(train(faces, *mapped))


def test_a_disk_too_small_for_the_centers(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    small = os.statvfs_result([*real[:4], 0, *real[5:]])
    monkeypatch.setattr("manyface.centers.place.os.statvfs", lambda path: small)
    mapped = ("head.placement=file", f"head.placement_folder={tmp_path / 'centers'}")
    code, lines = train(make_faces(tmp_path / "faces"), *mapped)
    assert (code, len(lines)) == (2, 1)
    assert "are free: choose a folder on another disk" in lines[0]

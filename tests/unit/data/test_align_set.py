"""Photos to aligned faces: each once, complete, in its folder and nowhere else."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manyface.base.errors import ConfigError, DataError, WriteError
from manyface.data.align import align, template
from manyface.data.align_set import AlignedSet, How, align_set
from manyface.data.decode import UnreadableImageError, decode_whole
from manyface.data.records import Records, open_records
from manyface.data.records.base import GroupedRecords

from .conftest import encode, smooth_pixels

POINTS = template() * 0.8 + 12
PNG = How(112, "png", "test")


def find(name: str, pixels: np.ndarray) -> np.ndarray:
    return POINTS


class InMemory(GroupedRecords):
    """Records with names that no folder would give."""

    def __init__(self, people: dict[str, dict[str, bytes]]) -> None:
        super().__init__(
            Path("memory"),
            identity_names=list(people),
            images_per_identity=[len(each) for each in people.values()],
        )
        self._all = [item for each in people.values() for item in each.items()]

    def read(self, index: int) -> bytes:
        return self._all[index][1]

    def file_name(self, index: int) -> str:
        return self._all[index][0]

    def describe(self, index: int) -> str:
        return self.file_name(index)

    def read_text(self, name: str) -> str:
        raise DataError(name)

    @property
    def index_bytes(self) -> int:
        return 0


def photo(seed: int, form: str = "PNG") -> bytes:
    return encode(smooth_pixels(seed, height=130, width=120), form)


@pytest.fixture
def photos() -> Records:
    return InMemory({
        "Ann": {"1.png": photo(1), "2.jpg": photo(2, "JPEG")},
        "team a/Bob": {"1.png": photo(3), "1.jpg": photo(4, "JPEG")},
    })  # fmt: skip


def files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(folder)) for path in found)


@pytest.mark.parametrize("threads", [1, 3])
def test_writes_a_folder_of_persons(photos: Records, tmp_path: Path, threads: int) -> None:
    seen: list[tuple[int, int]] = []
    done = align_set(
        photos, tmp_path / "out", find, PNG, threads=threads, progress=lambda *at: seen.append(at)
    )
    assert done == AlignedSet(written=4, present=0, left_out=[])
    assert seen == [(k, 4) for k in range(1, 5)]
    crops = ["Ann/1.png", "Ann/2.png", "team a/Bob/1.jpg.png", "team a/Bob/1.png.png"]
    assert files(tmp_path / "out") == sorted([".align.json", *crops, "left_out.tsv"])
    for index, name in ((0, crops[0]), (2, crops[3])):
        wanted = align(decode_whole(photos.read(index)), POINTS)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), wanted)
    assert len(open_records(tmp_path / "out")) == 4


def test_jpeg_has_colours_in_full(photos: Records, tmp_path: Path) -> None:
    align_set(photos, tmp_path, find, How(224, "jpg", "test"))
    with Image.open(tmp_path / "Ann" / "1.jpg") as image:
        assert image.size == (224, 224)
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]
        wanted = align(decode_whole(photos.read(0)), POINTS, size=224)
        assert np.abs(np.asarray(image).astype(int) - wanted).mean() < 2


def test_goes_on_where_it_stopped(photos: Records, tmp_path: Path) -> None:
    def stops(name: str, pixels: np.ndarray) -> np.ndarray:
        if name == "team a/Bob/1.png":
            raise KeyboardInterrupt
        return POINTS

    with pytest.raises(KeyboardInterrupt):
        align_set(photos, tmp_path, stops, PNG)
    first = tmp_path / "Ann" / "1.png"
    made = first.stat().st_mtime_ns
    (tmp_path / "Ann" / ".2.png.part").write_bytes(b"half")
    assert align_set(photos, tmp_path, find, PNG) == AlignedSet(1, 3, [])
    assert first.stat().st_mtime_ns == made
    assert align_set(photos, tmp_path, find, PNG) == AlignedSet(0, 4, [])
    with pytest.raises(ConfigError, match=r"aligned in another way .*'size': 112.* now .*224"):
        align_set(photos, tmp_path, find, How(224, "png", "test"))
    (tmp_path / ".align.json").write_text("{")
    with pytest.raises(ConfigError, match="aligned in another way"):
        align_set(photos, tmp_path, find, PNG)


def test_lists_what_is_left_out(tmp_path: Path) -> None:
    def some(name: str, pixels: np.ndarray) -> np.ndarray:
        if name.startswith("Bob"):
            raise DataError("no face\nwas found")
        return POINTS * (1 if name == "Ann/1.png" else 100)

    photos = InMemory({
        "Ann": {"1.png": photo(1), "2.png": photo(2), "3.png": b"", "4\t.png": b"text"},
        "Bob": {"1.png": photo(3)},
    })  # fmt: skip
    done = align_set(photos, tmp_path, some, PNG)
    assert (done.written, len(done.left_out)) == (1, 4)
    lines = (tmp_path / "left_out.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        "Ann/2.png", "Ann/3.png", "Ann/4 .png", "Bob/1.png",
    ]  # fmt: skip
    assert [line.split("\t")[1] for line in lines][::3] == [
        "no landmark lies inside of the 120x130 photo; are they of another size?",
        "no face was found",
    ]
    assert not (tmp_path / "Bob").exists()


@pytest.mark.parametrize(
    "person, name", [("..", "1.png"), ("../x", "1.png"), ("a/../../x", "1.png"), ("", "1.png"),
                     ("/etc", "1.png"), ("a\0b", "1.png"), (".git", "1.png"), ("a", ".png"),
                     ("a//b", "1.png")]
)  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path: Path, person: str, name: str) -> None:
    (tmp_path / "out").mkdir()
    done = align_set(InMemory({person: {name: photo(1)}}), tmp_path / "out", find, PNG)
    assert (done.written, len(done.left_out)) == (0, 1)
    assert files(tmp_path) == ["out/.align.json", "out/left_out.tsv"]


def test_links_that_lead_elsewhere(photos: Records, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "Ann").symlink_to(outside)
    (out / "team a").mkdir()
    (out / ".align.json").write_text(json.dumps(asdict(PNG)))
    done = align_set(photos, out, find, PNG)
    assert (done.written, [reason for _, reason in done.left_out]) == (
        2, [f"a link leads out of {out}"] * 2,
    )  # fmt: skip
    assert files(outside) == []
    (out / ".left_out.tsv.part").symlink_to(outside / "made")
    with pytest.raises(WriteError, match=r"left_out\.tsv"):
        align_set(photos, out, find, PNG)
    assert files(outside) == []


def test_a_folder_of_other_things_is_left_alone(photos: Records, tmp_path: Path) -> None:
    (tmp_path / "Ann").mkdir()
    with pytest.raises(ConfigError, match="holds 'Ann', and no aligned faces"):
        align_set(photos, tmp_path, find, PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["Ann"]
    (tmp_path / "Ann").rmdir()
    (tmp_path / "..align.json.part").touch()  # of a process that was killed at once
    assert align_set(photos, tmp_path, find, PNG).written == 4


def test_a_folder_that_cannot_be_written(photos: Records, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/out"):
        align_set(photos, tmp_path / "file" / "out", find, PNG)


def test_the_folder_itself_may_be_a_link(photos: Records, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    assert align_set(photos, tmp_path / "out", find, PNG).written == 4


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int, form: str) -> None:
    """As Pillow turns them, for every number of EXIF."""
    from PIL import ImageOps

    image = Image.fromarray(smooth_pixels(7, height=130, width=120))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif, lossless=True)
    shapes = []

    def note(name: str, pixels: np.ndarray) -> np.ndarray:
        shapes.append(pixels)
        return POINTS

    align_set(InMemory({"Ann": {"1.png": buffer.getvalue()}}), tmp_path, note, PNG)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue())))
    far = 8 if form == "JPEG" else 0  # of which two decoders differ a little
    np.testing.assert_allclose(shapes[0].astype(int), np.asarray(upright), atol=far, rtol=0)


def test_broken_exif_is_no_reason_to_stop() -> None:
    from manyface.data.align_set import upright

    pixels = smooth_pixels(1)
    assert upright(pixels, b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0\xff") is pixels


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_decoding_whole(form: str) -> None:
    pixels = smooth_pixels(3, height=700, width=500)
    assert np.abs(decode_whole(encode(pixels, form)).astype(int) - pixels).max() < 40
    with pytest.raises(UnreadableImageError, match="expected 1 to 1000 pixels"):
        decode_whole(encode(pixels, form), max_pixels=1000)
    with pytest.raises(UnreadableImageError):
        decode_whole(b"")


def test_damaged_records_are_left_out(tmp_path: Path, write_faces: Callable[..., Path]) -> None:
    folder = write_faces({"Ann": 2}, size=130)
    os.truncate(folder / "Ann" / "0002.jpg", 300)
    (folder / "Ann" / "0003.jpg").symlink_to("nowhere")
    done = align_set(open_records(folder), tmp_path / "out", find, PNG)
    assert done.written == 1
    assert [name for name, _ in done.left_out] == ["Ann/0002.jpg", "Ann/0003.jpg"]


def test_no_crop_takes_the_place_of_another(tmp_path: Path) -> None:
    """Photos of several shards may share a name; others differ in what is cut off."""
    names = ["1.jpg", "1.png", "1.jpg.png"]
    people = {"Ann": {name: photo(seed) for seed, name in enumerate(names)}}
    records = InMemory(people)
    records._all += [("1.jpg", photo(7))]
    records.first_images[-1] += 1
    done = align_set(records, tmp_path / "out", find, PNG)
    assert (done.written, done.present, done.left_out) == (4, 0, [])
    assert len(list((tmp_path / "out" / "Ann").iterdir())) == 4
    assert align_set(records, tmp_path / "out", find, PNG).present == 4


def test_names_as_long_as_they_may_be_and_longer(tmp_path: Path) -> None:
    people = {"Ann": {"x" * 251 + ".jpg": photo(0)}, "y" * 256: {"1.jpg": photo(1)},
              "Bob": {"z" * 300 + ".jpg": photo(2)}}  # fmt: skip
    done = align_set(InMemory(people), tmp_path / "out", find, PNG)
    assert done.written == 1
    assert [reason for _, reason in done.left_out] == ["its name cannot be that of a file here"] * 2

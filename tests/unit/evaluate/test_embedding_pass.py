"""The embedding pass: killed and gone on with, on several ranks, with bad images; its files."""

import errno
import io
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import on_ranks
from safetensors.numpy import load_file

from manyface.base.errors import ConfigError, DataError, NonFiniteError, WriteError
from manyface.base.files import held
from manyface.data.decode import UnreadableImageError, decode_whole
from manyface.data.records import open_records
from manyface.data.records.loose import has_people, open_images
from manyface.evaluate import part_files
from manyface.evaluate.embedding_files import (
    checked_format,
    read_embeddings,
    write_embeddings,
)
from manyface.evaluate.embedding_pass import PassOptions, embed_records
from manyface.evaluate.part_files import parts_folder, remove_parts
from manyface.parallel import Ranks

SIDE = 8
OPTIONS = PassOptions(batch_size=3, part_size=7, threads=2)
JOB = {"model": "a" * 32}


def embed(images):
    pixels = images.flatten(1).float() - 127.5
    return torch.nn.functional.normalize(pixels[:, :16], dim=1)


def read(data, record):
    try:
        pixels = decode_whole(data)
    except UnreadableImageError as error:
        raise DataError(f"image {record}: {error}") from error
    if pixels.shape[0] != SIDE:
        raise DataError(f"image {record} has {pixels.shape[0]} pixels")
    return pixels


def png(seed, side=SIDE):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def faces(tmp_path):
    """Ten people of three images; two images are none, one is too large."""
    for person in range(10):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for image in range(3):
            (folder / f"{image}.png").write_bytes(png(10 * person + image))
    (tmp_path / "faces/p2/1.png").write_bytes(b"no image")
    (tmp_path / "faces/p9/2.png").write_bytes(b"")
    (tmp_path / "faces/p4/0.png").write_bytes(png(0, side=9))
    return tmp_path / "faces"


def run(faces, target, *, embed=embed, read=read, options=OPTIONS, job=JOB, ranks=None):
    records = open_records(faces)
    more = {} if ranks is None else {"ranks": ranks}
    found = embed_records(
        embed, read, records, parts_folder(target), job=job, options=options, **more
    )
    return records, found


def written(faces, target, *, form="safetensors", **rest):
    records, found = run(faces, target, **rest)
    paths = write_embeddings(target, found, records, {"source": "faces"}, form=form)
    remove_parts(parts_folder(target))
    return {path.name: path.read_bytes() for path in paths}


def test_every_usable_image_has_its_embedding_and_the_others_are_named(faces, tmp_path):
    seen = []

    def counted(data, record):
        seen.append(record)
        return read(data, record)

    records, found = run(faces, tmp_path / "out", read=counted)
    assert sorted(seen) == list(range(30))  # one read of each
    bad = {7, 12, 29}
    assert found.records.tolist() == [k for k in range(30) if k not in bad]
    assert [record for record, _ in found.left_out] == sorted(bad)
    assert "no image" in found.left_out[0][1]
    assert "9 pixels" in found.left_out[1][1]
    for row, record in zip(found.array(), found.records.tolist(), strict=True):
        pixels = torch.from_numpy(np.array(decode_whole(records.read(record))))[None]
        np.testing.assert_allclose(row, embed(pixels)[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("stop", [0, 1, 3, 8])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_stopped_ends_in_the_same_bytes(faces, tmp_path, stop, half):
    options = PassOptions(batch_size=3, part_size=7, threads=2, half=half)
    whole = written(faces, tmp_path / "a.safetensors", options=options)
    calls = []

    def stops(images):
        calls.append(len(images))
        if len(calls) > stop:
            raise KeyboardInterrupt
        return embed(images)

    with pytest.raises(KeyboardInterrupt):
        run(faces, tmp_path / "b.safetensors", embed=stops, options=options)
    calls.clear()
    stop = 10**6
    again = written(faces, tmp_path / "b.safetensors", embed=stops, options=options)
    assert [again[name.replace("a.", "b.")] for name in whole] == list(whole.values())
    assert not list(tmp_path.glob("*.parts"))


def _killed(faces, target):
    calls = []

    def dies(images):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return embed(images)

    run(faces, target, embed=dies)


def test_what_is_killed_goes_on_after_the_parts_that_are_done(faces, tmp_path):
    target = tmp_path / "b.safetensors"
    process = get_context("spawn").Process(target=_killed, args=(faces, target))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    counted = []

    def counts(images):
        counted.append(len(images))
        return embed(images)

    found = written(faces, target, embed=counts)
    assert 0 < sum(counted) <= 27 - 12
    assert found["b.safetensors"] == written(faces, tmp_path / "a.safetensors")["a.safetensors"]


def _on_rank(faces, target):
    _, found = run(faces, target, ranks=Ranks())
    return found.array()


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_images(faces, tmp_path, size):
    _, alone = run(faces, tmp_path / "alone")
    for found in on_ranks(_on_rank, size, faces, tmp_path / "together"):
        np.testing.assert_array_equal(found, alone.array())


def test_damaged_parts_are_made_again_and_those_of_other_images_too(faces, tmp_path):
    _, before = run(faces, tmp_path / "out")
    expected = before.array()
    part = parts_folder(tmp_path / "out") / "00000001.part"
    whole = part.read_bytes()
    for damaged in (whole[:-3], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        part.write_bytes(damaged)
        np.testing.assert_array_equal(run(faces, tmp_path / "out")[1].array(), expected)
    (faces / "p0/1.png").rename(faces / "p0/1b.png")
    (faces / "p0/1b.png").write_bytes(png(77))
    changed = run(faces, tmp_path / "out")[1].array()
    assert (changed != expected).any(axis=1).tolist() == [k == 1 for k in range(27)]


def test_parts_of_images_that_were_replaced_are_made_again(faces, tmp_path):
    run(faces, tmp_path / "out")
    for image in faces.glob("*/*.png"):
        image.write_bytes(png(ord(image.parent.name[1]) * 1000 + ord(image.stem)))
    expected = run(faces, tmp_path / "anew")[1].array()
    np.testing.assert_array_equal(run(faces, tmp_path / "out")[1].array(), expected)


def test_no_part_stays_open(faces, tmp_path):
    """A process may open about a thousand files, and a set has thousands of parts."""

    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    _, found = run(faces, tmp_path / "out")
    assert open_files() == before
    assert max(open_files() for _ in found.parts()) <= before + 2
    assert len(found.array()) == len(found)


def test_a_part_that_cannot_be_opened_is_not_called_damaged(faces, tmp_path, monkeypatch):
    def no_more(path):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(part_files, "map_arrays", no_more)
    with pytest.raises(DataError, match=r"cannot read .*00000000\.part: Too many open files"):
        run(faces, tmp_path / "out")


def test_parts_of_another_job_are_refused(faces, tmp_path):
    run(faces, tmp_path / "out")
    with pytest.raises(DataError, match="begun with another model;"):
        run(faces, tmp_path / "out", job={"model": "b" * 32})
    half = PassOptions(batch_size=3, part_size=7, half=True)
    with pytest.raises(DataError, match="another half"):
        run(faces, tmp_path / "out", options=half)
    (parts_folder(tmp_path / "out") / "job.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        run(faces, tmp_path / "out")
    (tmp_path / "x.parts").mkdir()
    (tmp_path / "x.parts" / "mine.txt").touch()
    with pytest.raises(DataError, match=r"holds other files \(mine\.txt\)"):
        run(faces, tmp_path / "x")


def test_an_embedding_that_is_not_finite_names_its_image(faces, tmp_path):
    def broken(images):
        found = embed(images)
        found[0, 0] = float("nan")
        return found

    with pytest.raises(NonFiniteError, match=r"p0/0\.png is not finite"):
        run(faces, tmp_path / "out", embed=broken)


def test_no_usable_image_is_an_error(tmp_path):
    (tmp_path / "faces/a").mkdir(parents=True)
    (tmp_path / "faces/a/1.png").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"none of the 1 images of .* can be used; first: .*1\.png: image 0"
    ):
        run(tmp_path / "faces", tmp_path / "out")


def test_a_place_that_cannot_be_written(faces, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        run(faces, tmp_path / "file" / "out")


def test_the_library_reads_what_is_written(faces, tmp_path):
    written(faces, tmp_path / "e.safetensors")
    tensors = load_file(tmp_path / "e.safetensors")
    assert tensors["embeddings"].shape == (27, 16)
    found = read_embeddings(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(found.embeddings, tensors["embeddings"])
    assert list(found.names) == [f"p{k}" for k in range(10)]
    assert [found.images[k] for k in (0, 7)] == ["0.png", "2.png"]
    assert found.labels.tolist() == tensors["labels"].tolist()
    assert found.notes["source"] == "faces"
    left = (tmp_path / "e.left_out.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in left] == ["p2/1.png", "p4/0.png", "p9/2.png"]


def test_npy_and_its_lines(faces, tmp_path):
    files = written(faces, tmp_path / "e.npy", form="npy")
    assert sorted(files) == ["e.left_out.tsv", "e.npy", "e.tsv"]
    _, found = run(faces, tmp_path / "again")
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), found.array())
    lines = (tmp_path / "e.tsv").read_text().splitlines()
    assert (len(lines), lines[0]) == (27, "0.png\tp0")


def test_formats_and_suffixes(tmp_path):
    with pytest.raises(ConfigError, match="one of safetensors, npy"):
        checked_format(tmp_path / "a.npz", "npz")
    with pytest.raises(ConfigError, match=r"called a\.npy"):
        checked_format(tmp_path / "a.safetensors", "npy")


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_other_files_are_no_embeddings(tmp_path, damage):
    (tmp_path / "e").write_bytes(damage)
    with pytest.raises(DataError):
        read_embeddings(tmp_path / "e")
    with pytest.raises(DataError, match="cannot read"):
        read_embeddings(tmp_path / "none")


def test_loose_images_belong_to_nobody(faces, tmp_path):
    folder = faces / "p0"
    loose = open_images([folder], warn=print)
    assert (len(loose), has_people(loose), loose.describe(1)) == (3, False, str(folder / "1.png"))
    named = open_images([folder / "2.png", folder / "0.png"], warn=print)
    assert [named.file_name(k) for k in range(2)] == ["2.png", "0.png"]
    assert has_people(open_images([faces], warn=print))
    with pytest.raises(DataError, match="not both"):
        open_images([faces, folder / "0.png"], warn=print)
    with pytest.raises(DataError, match="no such image"):
        open_images([folder / "0.png", folder / "none.png"], warn=print)
    with pytest.raises(DataError, match="none"):
        open_images([tmp_path / "none"], warn=print)


def test_one_process_writes_a_target(tmp_path):
    with held(tmp_path / "a"), held(tmp_path / "b"):
        pass
    with pytest.raises(WriteError), held(tmp_path / ("x" * 300)):
        pass


def test_images_beside_folders_of_people_are_no_loose_images(faces):
    (faces / "stray.png").write_bytes(png(1))
    said = []
    records = open_images([faces], warn=said.append)
    assert (has_people(records), len(records)) == (True, 30)
    assert "belong to no person" in said[0]

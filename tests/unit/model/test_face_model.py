"""A model in use: pixels, paths, bytes, batches, sizes, alignment; runs and checkpoints opened."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_model import DIM, SIZE, make_model

import manyface as mf
from manyface.base.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from manyface.checkpoint import load
from manyface.data import DecodedImages, open_records
from manyface.data.align import align, template
from manyface.evaluate import make_embed_function
from manyface.model import Preprocessing
from manyface.model.images import resized
from manyface.train.build_model import build_precision
from manyface.train.scoring import find_checkpoint, load_embedder, read_run_config


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_pixels_paths_and_bytes_give_the_same(model, faces, tmp_path):
    expected = model.embed_batch(faces).numpy()
    (tmp_path / "face.png").write_bytes(png(faces[1].numpy()))
    mixed = [
        faces[0].numpy(),
        str(tmp_path / "face.png"),
        png(faces[2].numpy()),
        faces[3],
        faces[4],
    ]
    found = model.embed(mixed)
    assert found.dtype == np.float32
    assert found.shape == (5, DIM)
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_batches_change_nothing_but_rounding(model, faces, batch_size):
    found = model.embed(faces, batch_size=batch_size)
    np.testing.assert_allclose(found, model.embed_batch(faces).numpy(), atol=1e-5)


def test_no_images(model):
    assert model.embed([]).shape == (0, DIM)


def test_one_image_is_no_list(model, faces):
    for one in (faces[0], faces[0].numpy(), "ann.jpg", b"\xff\xd8", Path("ann.jpg")):
        with pytest.raises(DataError, match="put it in a list"):
            model.embed(one)


def test_another_size_points_to_alignment(model, tmp_path):
    (tmp_path / "ann.png").write_bytes(png(np.zeros((50, 40, 3), np.uint8)))
    path = tmp_path / "ann.png"
    message = (
        r"ann.png: it has 40x50 pixels, .* aligned faces of 32x32: .*manyface data align.*resize"
    )
    with pytest.raises(DataError, match=message):
        model.embed([path])


def test_resizing_is_that_of_training(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (tmp_path / "Ann").mkdir()
    (tmp_path / "Ann" / "1.png").write_bytes(png(pixels))
    images = DecodedImages(open_records(tmp_path), image_size=SIZE)
    expected = images.load(np.array([0]))
    assert np.array_equal(resized(pixels, SIZE), expected[0].numpy())
    assert np.array_equal(model.embed([pixels], resize=True), model.embed_batch(expected).numpy())


@pytest.mark.parametrize(
    "image, reason",
    [
        (
            np.zeros((32, 32), np.uint8),
            r"image 1: expected pixels \[H, W, 3\] in RGB, got \[32, 32",
        ),
        (np.zeros((32, 32, 4), np.uint8), r"got \[32, 32, 4\]"),
        (np.zeros((32, 32, 3), np.float32), "expected uint8 pixels .* got float32"),
        (b"nothing", "image 1: no image"),
        (b"", "image 1: the file is empty"),
        ("/absent/ann.jpg", "/absent/ann.jpg: No such file"),
        ("/dev/zero", "/dev/zero: it is no plain file"),
        ("/", "/: it is no plain file"),
    ],
)
def test_images_that_are_none(model, faces, image, reason):
    with pytest.raises(DataError, match=reason):
        model.embed([faces[0], image])


def test_a_photo_is_aligned_by_a_detector():
    model = make_model()
    photo = np.random.default_rng(1).integers(0, 256, (200, 180, 3), dtype=np.uint8)
    points = template(112) * 1.3 + 20

    def detector(image):
        return points[None], np.array([0.9])

    face = resized(align(photo, points, size=112), SIZE)
    found = model.embed([photo], align=True, detector=detector)
    assert np.array_equal(found, model.embed([face]))


def test_a_photo_is_turned_upright_before_it_is_aligned():
    """Detectors see what people see."""
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    seen = []

    def detector(image):
        seen.append(image)
        return np.zeros((0, 5, 2)), np.zeros(0)

    with pytest.raises(DataError, match="image 0: no face was found"):
        make_model().embed([buffer.getvalue()], align=True, detector=detector)
    assert np.array_equal(seen[0], np.rot90(pixels, -1))


def test_an_unknown_detector(model, faces):
    with pytest.raises(ConfigError, match="no detector is called 'retina'"):
        model.embed(faces, align=True, detector="retina")


def test_colour_mean_and_std(faces):
    feed = Preprocessing(SIZE, "BGR", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    found = feed.apply(faces)
    expected = faces.permute(0, 3, 1, 2).double()
    for channel, (mean, std) in enumerate([(1, 4), (2, 5), (3, 6)]):
        one = (expected[:, 2 - channel] - mean) / std
        torch.testing.assert_close(found[:, channel].double(), one, rtol=1e-6, atol=1e-6)
    assert Preprocessing.from_json(feed.to_json()) == feed


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "image_size"),
        ({"colour": "GRB"}, "colour must be one of RGB, BGR, got 'GRB'"),
        ({"std": (1.0, 0.0, 1.0)}, "std positive"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
        ({"template": "eyes"}, "template must be one of arcface"),
    ],
)
def test_preprocessing_that_cannot_be(options, message):
    with pytest.raises(DataError, match=message):
        Preprocessing(**options)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(1, 32, 32, 3)]
)
def test_batches_of_another_kind(model, images):
    with pytest.raises(DataError, match="this model takes images"):
        model.embed_batch(images)


def test_embeddings_that_are_not_finite(model, faces):
    model.net.get_parameter("fc.weight").data[0] = float("inf")
    with pytest.raises(NonFiniteError, match="the embedding of image 0 is not finite"):
        model.embed(faces)


def test_a_run_is_what_it_evaluates(trained_run, faces):
    model = mf.load(trained_run, device="cpu")
    config = read_run_config(trained_run)
    stored = load(find_checkpoint(trained_run, "last"), groups=("averaged", "backbone"))
    embed = make_embed_function(
        load_embedder(config, stored),
        flip=config.evaluation.flip,
        autocast=build_precision(config, torch.device("cpu"), warn=print),
    )
    assert torch.equal(model.embed_batch(faces), embed(faces))
    assert (model.name, model.embedding_size, model.image_size) == ("tiny", DIM, SIZE)
    assert model.provenance["step"] == 8
    assert model.provenance["trained_by"]["manyface"]


def test_checkpoints_of_a_run(trained_run, faces):
    path = trained_run / "checkpoints" / "step-00000006"
    direct, named = mf.load(path), mf.load(trained_run, checkpoint="step-00000006")
    assert torch.equal(direct.embed_batch(faces), named.embed_batch(faces))
    assert direct.fingerprint == named.fingerprint != mf.load(trained_run).fingerprint
    assert mf.load(trained_run, checkpoint="best").provenance["step"] in (4, 8)


def test_a_checkpoint_outside_of_its_run(trained_run, tmp_path):
    shutil.copytree(trained_run / "checkpoints" / "step-00000008", tmp_path / "step-00000008")
    with pytest.raises(CheckpointError, match=r"outside of its run: expected config.toml"):
        mf.load(tmp_path / "step-00000008")


def test_places_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        mf.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="is no model: expected the folder of a run"):
        mf.load(tmp_path)
    (tmp_path / "notes.txt").write_text("hello, this is no model")
    with pytest.raises(CheckpointError, match=r"is no model \(it begins with b'hello"):
        mf.load(tmp_path / "notes.txt")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is no model"):
        mf.load(tmp_path / "empty")


def test_a_run_says_its_colour(trained_run):
    with pytest.raises(ConfigError, match="says itself that its net takes RGB"):
        mf.load(trained_run, colour="BGR")


def test_a_device_that_is_not_there(trained_run):
    with pytest.raises(
        ConfigError, match="sees no CUDA GPU" if not torch.cuda.is_available() else "GPUs"
    ):
        mf.load(trained_run, device="cuda:7")


def test_images_that_cannot_be_counted(model, faces):
    with pytest.raises(DataError, match=r"got generator: embed\(list"):
        model.embed(face for face in faces)


def test_a_photo_may_be_larger_than_an_aligned_face():
    """24 million pixels, as telephones take them; the limit of aligned faces stays."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 4000)).save(buffer, "JPEG")
    points = template(112) * 9 + 100
    found = make_model().embed(
        [buffer.getvalue()], align=True, detector=lambda image: (points[None], np.array([0.9]))
    )
    assert found.shape == (1, DIM)
    with pytest.raises(DataError, match="6000x4000 pixels; expected 1 to 16777216"):
        make_model().embed([buffer.getvalue()], resize=True)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="neither a file nor a folder"):
        mf.load(tmp_path / "pipe")

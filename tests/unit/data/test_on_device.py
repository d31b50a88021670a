"""Batches that are augmented where they are trained on: the same images as those of the loader."""

import numpy as np
import pytest
import torch

from manyface.data import Augmentation, DecodedImages, DualLoader, Loader, augment, open_records
from manyface.data.transforms.draws import Draws
from manyface.data.transforms.together import augment_together

CPU = torch.device("cpu")
ALL = {
    "flip": 0.5, "shift": 3.0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "grey": 0.3,
    "blur": 0.4, "low_resolution": 0.4, "erase": 0.4,
}  # fmt: skip
EVERYTHING = Augmentation(**ALL, rotate_degrees=15, scale=0.2)
COPIES = [Augmentation(flip=0), Augmentation(), Augmentation(shift=3, erase=0.6)]
ROUNDED = [
    Augmentation(**ALL), EVERYTHING, Augmentation(blur=1), Augmentation(low_resolution=1),
    Augmentation(flip=1, rotate_degrees=30), Augmentation(saturation=1, grey=0.5),
]  # fmt: skip


def pictures(count: int = 21, side: int = 24) -> torch.Tensor:
    values = np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return torch.from_numpy(values)


def both(options: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    images, positions = pictures(), np.arange(100, 121)
    one_by_one = augment(images, positions=positions, seed=7, options=options)
    return one_by_one, augment_together(images, Draws(7, positions), options)


@pytest.mark.parametrize("options", COPIES)
def test_what_copies_values_gives_the_same_bits(options):
    one_by_one, together = both(options)
    assert together.is_contiguous()
    assert torch.equal(one_by_one, together)


@pytest.mark.parametrize("options", ROUNDED)
def test_the_rest_differs_by_rounding(options):
    one_by_one, together = both(options)
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("options", [*COPIES, *ROUNDED])
def test_on_a_gpu(options):
    images, positions = pictures(), np.arange(100, 121)
    here = augment(images, positions=positions, seed=7, options=options)
    there = augment(images.cuda(), positions=positions, seed=7, options=options)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_come_in_pinned_memory(write_faces):
    source = DecodedImages(open_records(write_faces({"Ann": 4, "Bob": 4})), image_size=24)
    options = {"batch_size": 6, "seed": 3, "augmentation": EVERYTHING}
    for here, there in zip(
        Loader(source, **options).batches(0, 5),
        Loader(source, **options, on_device=True).batches(0, 5),
        strict=True,
    ):
        assert there.images.is_pinned()
        found = there.images_on(torch.device("cuda")).cpu()
        torch.testing.assert_close(found, here.images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Loader, DualLoader])
def test_a_batch_that_is_finished_later_is_the_same(write_faces, kind):
    source = DecodedImages(
        open_records(write_faces({"Ann": 4, "Bob": 3, "Cyd": 2})), image_size=24, threads=2, cache=0
    )
    options = {"batch_size": 6, "seed": 3, "augmentation": EVERYTHING}
    eager = kind(source, **options).batches(0, 5)
    deferred = kind(source, **options, on_device=True, workers=2).batches(0, 5)
    for here, later in zip(eager, deferred, strict=True):
        assert later.images.dtype == torch.uint8
        assert later.images.shape == (6, 24, 24, 3)
        assert torch.equal(later.images_on(CPU), here.images_on(CPU))
        assert here.images_on(CPU) is here.images
        assert torch.equal(later.labels, here.labels)


def test_images_are_decoded_straight_into_the_batch(write_faces):
    for cache in (0, 1 << 20):
        source = DecodedImages(
            open_records(write_faces({"Ann": 4, "Bob": 3}, folder=f"f{cache}")),
            image_size=24,
            cache=cache,
        )
        buffer = torch.zeros(3, 24, 24, 3, dtype=torch.uint8)
        assert source.load(np.array([4, 0, 4]), buffer) is buffer
        assert torch.equal(buffer, source.load(np.array([4, 0, 4])))

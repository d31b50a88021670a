"""Each augmentation does what it says, and nothing when it is off."""

import dataclasses

import numpy as np
import pytest
import torch

from manyface.base.errors import ConfigError
from manyface.data import Augmentation, augment, normalise

OFF = Augmentation(flip=0)
SIZE = 32


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(40, 3, 6, 6, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    return fine.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous()


def run(images: torch.Tensor, seed: int = 0, **options: float) -> torch.Tensor:
    positions = np.arange(100, 100 + len(images))
    options = {"flip": 0.0} | options
    return augment(images, positions=positions, seed=seed, options=Augmentation(**options))


def share_changed(images: torch.Tensor, **options: float) -> float:
    changed = (run(images, **options) - normalise(images)).abs().amax(dim=(1, 2, 3)) > 0
    return float(changed.float().mean())


def test_normalise_is_the_formula(images):
    result = normalise(images)
    assert result.shape == (40, 3, SIZE, SIZE)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, (images.permute(0, 3, 1, 2).float() - 127.5) / 127.5)
    assert normalise(torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None]).tolist() == [
        [[[-1.0]]],
        [[[1.0]]],
    ]


def test_everything_off_is_exactly_normalise(images):
    assert torch.equal(run(images), normalise(images))


@pytest.mark.parametrize(
    "options",
    [
        {"flip": 0.5},
        {"shift": 3},
        {"rotate_degrees": 10.0, "scale": 0.1, "flip": 0.5, "shift": 0.1},
        {"brightness": 0.5},
        {"contrast": 0.5},
        {"saturation": 0.5},
        {"grey": 0.5},
        {"blur": 0.5},
        {"low_resolution": 0.5},
        {"erase": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_option_works_alone(images, options):
    result = run(images, **options)
    assert result.shape == (40, 3, SIZE, SIZE)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.abs().max() <= 1
    assert torch.equal(result, run(images, **options))
    assert not torch.equal(result, run(images, seed=1, **options))
    assert share_changed(images, **options) >= 0.25


def test_one_option_leaves_the_draws_of_the_others(images):
    flipped = run(images, flip=0.5)
    also_erased = run(images, flip=0.5, erase=0.3)
    same = (flipped == also_erased).all(dim=1).all(dim=1).all(dim=1)
    assert 0.5 < same.float().mean() < 0.9


def test_flip_mirrors_left_and_right(images):
    assert torch.equal(run(images, flip=1.0), normalise(images).flip(-1))
    assert 0.2 < share_changed(images, flip=0.5) < 0.8


def test_shift_moves_whole_pixels_and_repeats_the_border(images):
    plain, moved = normalise(images).numpy(), run(images, shift=3).numpy()
    steps = set()
    for before, after in zip(plain, moved, strict=True):
        padded = np.pad(before, ((0, 0), (3, 3), (3, 3)), mode="edge")
        fits = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if np.array_equal(padded[:, top : top + SIZE, left : left + SIZE], after)
        ]
        assert fits
        steps.update(fits)
    assert len(steps) > 15


def test_a_shift_below_one_is_a_fraction_of_the_side(images):
    assert torch.equal(run(images, shift=3 / SIZE), run(images, shift=3))


def test_rotation_and_scale_stay_within_their_limits():
    # A bright disc away from the center: rotation and scale can be read off where it comes to lie.
    disc = torch.zeros(64, 65, 65, 3, dtype=torch.uint8)
    disc[:, 31:34, 51:54] = 255  # 20 pixels right of the center
    for options, angle, ratio in (
        ({"rotate_degrees": 30.0}, 30.0, 1.0),
        ({"scale": 0.25}, 0.0, 1.25),
    ):
        weights = (run(disc, **options) + 1).sum(dim=1)  # [64, 65, 65]
        places = torch.arange(65.0) - 32
        total = weights.sum(dim=(1, 2))
        x = (weights.sum(dim=1) * places).sum(dim=1) / total
        y = (weights.sum(dim=2) * places).sum(dim=1) / total
        radius, turn = torch.hypot(x, y) / 20, torch.rad2deg(torch.atan2(y, x))
        assert turn.abs().max() <= angle + 1
        assert turn.abs().max() >= angle * 0.8
        assert radius.max() <= ratio + 0.03
        assert radius.min() >= 1 / ratio - 0.03
        assert radius.max() - radius.min() >= (ratio - 1 / ratio) * 0.8 - 1e-6


def test_warped_flip_equals_the_plain_one(images):
    result = run(images, flip=1.0, rotate_degrees=1e-6)
    assert torch.allclose(result, normalise(images).flip(-1), atol=1e-4)


def test_brightness_is_a_factor():
    flat = torch.full((200, 4, 4, 3), 100, dtype=torch.uint8)
    values = run(flat, brightness=0.2)[:, 0, 0, 0] * 127.5 + 127.5
    assert 79.9 <= values.min() < 85
    assert 115 < values.max() <= 120.1


def test_contrast_keeps_the_mean_grey(images):
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    narrow = images // 4 + 96  # stays clear of the limits
    plain, changed = normalise(narrow), run(narrow, contrast=0.5)
    grey_before, grey_after = ((x * weights).sum(1).mean((1, 2)) for x in (plain, changed))
    assert torch.allclose(grey_before, grey_after, atol=1e-4)
    ratio = changed.std((1, 2, 3)) / plain.std((1, 2, 3))
    assert ratio.max() > 1.3
    assert ratio.min() < 0.7


def test_colour_chain_equals_the_steps_one_by_one(images):
    # Reference: brightness, contrast about the mean grey, saturation; all in float64.
    from manyface.data.transforms.draws import Draws, Lane

    weights = np.array([0.299, 0.587, 0.114])
    draws = Draws(0, np.arange(100, 140))
    b, c, s = (
        draws.uniform(lane, 0.8, 1.2).astype(float)
        for lane in (Lane.BRIGHTNESS, Lane.CONTRAST, Lane.SATURATION)
    )
    s[draws.chosen(Lane.GREY, 0.3)] = 0
    expected = images.numpy() * b[:, None, None, None]
    mean = (expected @ weights).mean(axis=(1, 2))[:, None, None, None]
    expected = (expected - mean) * c[:, None, None, None] + mean
    grey = (expected @ weights)[..., None]
    expected = (expected - grey) * s[:, None, None, None] + grey
    expected = np.clip(expected / 127.5 - 1, -1, 1).transpose(0, 3, 1, 2)
    result = run(images, brightness=0.2, contrast=0.2, saturation=0.2, grey=0.3)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-6)


def test_grey_removes_all_colour(images):
    result = run(images, grey=1.0)
    assert torch.allclose(result[:, 0], result[:, 1], atol=1e-6)
    assert torch.allclose(result[:, 0], result[:, 2], atol=1e-6)


@pytest.mark.parametrize("option", ["blur", "low_resolution"])
def test_degrading_removes_detail_and_keeps_the_mean(option):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (30, 48, 48, 3), generator=generator).to(torch.uint8)
    plain, worse = normalise(noise), run(noise, **{option: 1.0})
    detail = (worse - worse.roll(1, -1)).square().mean((1, 2, 3))
    detail_before = (plain - plain.roll(1, -1)).square().mean((1, 2, 3))
    assert (detail < 0.9 * detail_before).all()
    assert detail.mean() < 0.4 * detail_before.mean()
    assert torch.allclose(worse.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=0.05)


def test_low_resolution_equals_two_resizes(images):
    from manyface.data.transforms.degrade import _filter, resolution_filter

    resize = torch.nn.functional.interpolate
    for small_side in (1, 7, 20):
        image = normalise(images[:1])
        small = resize(image, (small_side, small_side), mode="bilinear", antialias=True)
        expected = resize(small, (SIZE, SIZE), mode="bilinear")[0]
        _filter(image[0], resolution_filter(SIZE, small_side))
        torch.testing.assert_close(image[0], expected, atol=1e-5, rtol=0)


def test_blur_equals_a_convolution_with_repeated_border(images):
    from manyface.data.transforms.degrade import _filter, gaussian_filter

    image, reach, sigma = normalise(images[:1]), 4, 1.3
    kernel = torch.exp(torch.arange(-reach, reach + 1.0).square() / (-2 * sigma**2))
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(3, 1, -1, -1)
    padded = torch.nn.functional.pad(image, (reach,) * 4, mode="replicate")
    expected = torch.nn.functional.conv2d(padded, kernel, groups=3)[0]
    _filter(image[0], gaussian_filter(SIZE, sigma=sigma))
    torch.testing.assert_close(image[0], expected, atol=1e-5, rtol=0)


def test_erasing_fills_one_rectangle(images):
    changed = (run(images, erase=1.0) - normalise(images)).abs().amax(dim=1) > 0  # [40, S, S]
    assert changed.any(dim=(1, 2)).all()
    for mask in changed:
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        area = int(rows.max() - rows.min() + 1) * int(columns.max() - columns.min() + 1)
        assert area <= 0.25 * SIZE**2
        assert mask.sum() > 0.8 * area


@pytest.mark.parametrize("size", [1, 2, 7])
def test_tiny_images(size):
    images = torch.randint(0, 256, (3, size, size, 3)).to(torch.uint8)
    everything = {field.name: 1.0 for field in dataclasses.fields(Augmentation)}
    result = run(images, **everything)
    assert result.shape == (3, 3, size, size)
    assert result.isfinite().all()


def test_no_images():
    assert run(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), shift=2).shape == (0, 3, 8, 8)


def test_the_input_is_not_changed(images):
    before = images.clone()
    run(images, flip=0.5, shift=2, brightness=0.2, erase=0.5)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("flip", 1.5),
        ("shift", -1),
        ("scale", float("inf")),
        ("blur", float("nan")),
        ("erase", -0.1),
    ],
)
def test_impossible_options(option, value):
    with pytest.raises(ConfigError, match=f"augmentation.{option} must be"):
        Augmentation(**{option: value})


def test_one_position_per_image(images):
    with pytest.raises(ValueError, match="one position per image, got 3 for 40"):
        augment(images, positions=np.arange(3), seed=0, options=OFF)

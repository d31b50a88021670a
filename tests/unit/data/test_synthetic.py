"""Synthetic faces: the same for ever, alone or in any batch; hard for pixels, fair to all pairs."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from manyface.base.errors import DataError
from manyface.base.random import numpy_generator
from manyface.data.synthetic import Difficulty, SyntheticFaces


def faces(**changes: object) -> SyntheticFaces:
    arguments = {"num_identities": 50, "images_per_identity": 4, "image_size": 48, **changes}
    return SyntheticFaces(**arguments)


def distance(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().mean())


@pytest.mark.parametrize("size", [32, 47, 64, 112])
def test_images_of_any_size(size: int):
    source = faces(image_size=size)
    images = source.load(np.array([3, 0, 199]))
    assert images.shape == (3, size, size, 3)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert images.float().std() > 20
    assert len(source) == 200
    assert source.load(np.array([], np.int64)).shape == (0, size, size, 3)


def test_an_image_has_the_same_bits_alone_and_in_any_batch():
    source = faces()
    indices = numpy_generator(0, "order").permutation(200)[:75]
    batch = source.load(indices)
    for place in (0, 1, 31, 74):
        assert torch.equal(source.load(indices[[place]])[0], batch[place])
    reverse = source.load(indices[::-1].copy())
    assert torch.equal(reverse.flip(0), batch)
    again = faces().load(indices)
    assert torch.equal(again, batch)


def test_threads_do_not_change_bits():
    source, indices = faces(image_size=64), np.arange(40)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = source.load(indices)
        torch.set_num_threads(3)
        assert torch.equal(source.load(indices), one)
    finally:
        torch.set_num_threads(threads)


def test_people_and_pictures_do_not_depend_on_the_source_around_them():
    few, many = faces(images_per_identity=2), faces(num_identities=10**9, images_per_identity=2)
    assert torch.equal(few.load(np.arange(8)), many.load(np.arange(8)))
    more_each = faces(images_per_identity=10)
    assert torch.equal(few.load(np.array([7])), more_each.load(np.array([31])))  # person 3, image 1


def test_held_out_people_are_the_later_people_of_one_world():
    everyone, held_out = faces(), faces(num_identities=10, first_identity=40)
    assert torch.equal(held_out.load(np.arange(40)), everyone.load(np.arange(160, 200)))
    assert list(held_out.identity_names) == list(everyone.identity_names)[40:]
    train = faces(num_identities=40)
    assert not set(train.identity_names) & set(held_out.identity_names)


def test_identities_images_and_seeds_differ():
    images = faces().load(np.arange(200))
    assert len({image.numpy().tobytes() for image in images}) == 200
    assert distance(images, faces(seed=1).load(np.arange(200))) > 10


def test_with_equal_conditions_pictures_of_a_person_are_alike_and_people_are_not():
    still = Difficulty(
        pose=0, light=0, expression=0, disguise=0, occlusion=0, camera=0
    )  # background and clothes still change
    images = faces(difficulty=still).load(np.arange(200)).view(50, 4, 48, 48, 3)
    center = images[:, :, 16:44, 14:34]
    same = distance(center[:, 0], center[:, 1])
    different = distance(center[:-1, 0], center[1:, 0])
    assert same < 0.2 * different


def test_labels():
    source = faces()
    np.testing.assert_array_equal(source.labels(np.array([0, 3, 4, 199])), [0, 0, 1, 49])
    assert source.labels(np.array([5])).dtype == np.int64
    assert len(source.identity_names) == source.num_identities == 50
    assert source.identity_names[-1] == source.identity_names[49]


def test_conditions_are_drawn_alike_for_same_and_different_pairs():
    """Absolute differences of conditions: the same means within 4 standard errors."""
    people, pictures = 4000, 2
    source = faces(num_identities=people, images_per_identity=pictures)
    _, conditions = source.parameters(np.arange(people * pictures))
    for field in ("turn", "nod", "light_x", "light_y", "ambient", "exposure", "smile", "zoom"):
        values = getattr(conditions, field).reshape(people, pictures).double()
        same = (values[:, 0] - values[:, 1]).abs()
        different = (values[:, 0] - values[:, 1].roll(1)).abs()
        error = float(torch.sqrt((same.var() + different.var()) / people))
        assert abs(float(same.mean() - different.mean())) < 4 * error, field


def test_draws_have_the_spread_they_say():
    source = faces(num_identities=5000, images_per_identity=1, difficulty=Difficulty())
    people, pictures = source.parameters(np.arange(5000))
    assert float(people.cheek_width.mean()) == pytest.approx(1.1, abs=0.005)
    assert float(people.cheek_width.std()) == pytest.approx(0.08, rel=0.05)
    table = torch.cat((people.table, pictures.table)).flatten(1).double()
    correlation = torch.corrcoef(table) - torch.eye(len(table))
    assert float(correlation.abs().max()) < 0.08  # 5.6 standard errors, of thousands of pairs


def whitened_accuracy(train: Tensor, left: Tensor, right: Tensor, same: Tensor) -> float:
    """Best accuracy over thresholds of the cosine of PCA-200 whitened grey pixels."""

    def pixels(images: Tensor) -> Tensor:
        grey = images.float().mean(-1)[:, None]
        return functional.avg_pool2d(grey, 2).flatten(1)

    mean = pixels(train).mean(0)
    _, values, vectors = torch.linalg.svd(pixels(train) - mean, full_matrices=False)
    project = vectors[:200].T / values[:200]
    similarity = functional.cosine_similarity(
        (pixels(left) - mean) @ project, (pixels(right) - mean) @ project
    )
    thresholds = similarity.sort().values
    return max(float(((similarity > t) == same).float().mean()) for t in thresholds[::10])


def test_whitened_pixels_are_not_enough():
    train = faces(num_identities=600, images_per_identity=2).load(np.arange(1200))
    held_out = faces(num_identities=400, images_per_identity=2, first_identity=10**6)
    images = held_out.load(np.arange(800)).view(400, 2, 48, 48, 3)
    left = torch.cat((images[:, 0], images[:, 0]))
    right = torch.cat((images[:, 1], images[:, 1].roll(1, 0)))
    same = torch.arange(800) < 400
    assert 0.52 < whitened_accuracy(train, left, right, same) <= 0.75


# Means over the four quarters of four images of faces-1 at 32 x 32: red, green, blue.
GOLDEN = {
    "faces-1": (
        (169.7, 176.2, 153.0, 178.5, 151.4, 156.6, 121.8, 141.9, 141.8, 145.8, 106.2, 120.7),
        (169.9, 171.4, 140.4, 126.3, 162.5, 165.8, 122.4, 116.1, 149.4, 155.5, 98.4, 95.8),
        (101.2, 81.5, 120.8, 87.6, 94.5, 65.5, 112.9, 66.5, 99.9, 60.0, 115.5, 56.9),
        (102.9, 99.9, 145.7, 142.7, 82.8, 78.0, 123.3, 115.8, 71.8, 66.8, 114.2, 103.3),
    ),
    "demo-1": (
        (176.6, 185.1, 150.4, 179.4, 161.2, 167.9, 121.1, 143.0, 164.9, 168.7, 115.0, 129.2),
        (175.0, 169.2, 136.8, 113.7, 167.0, 162.2, 123.0, 106.7, 152.4, 150.5, 98.7, 89.0),
        (120.0, 112.5, 117.1, 84.3, 100.8, 87.1, 105.0, 64.5, 97.7, 76.4, 105.7, 55.6),
        (99.9, 99.7, 143.4, 141.0, 77.5, 72.3, 120.5, 109.6, 67.3, 59.9, 113.5, 97.2),
    ),
}


@pytest.mark.parametrize("difficulty", GOLDEN)
def test_presets_never_change(difficulty: str):
    source = faces(image_size=32, images_per_identity=10, difficulty=difficulty)
    images = source.load(np.array([0, 17, 123, 456])).permute(0, 3, 1, 2).float()
    blocks = functional.avg_pool2d(images, 16).flatten(1)
    # Pixels are exact by design; the tolerance allows for a machine that rounds otherwise.
    torch.testing.assert_close(blocks, torch.tensor(GOLDEN[difficulty]), rtol=0, atol=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 31}, r"image_size must be within \[32, 224\], got 31"),
        ({"num_identities": 0}, "num_identities must be within"),
        ({"first_identity": -1}, "first_identity must be within"),
        ({"first_identity": 2**32 - 10}, "num_identities must be within"),
        ({"difficulty": "faces-9"}, "expected one of faces-1, demo-1; got 'faces-9'"),
    ],
)
def test_bad_arguments(changes: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        faces(**changes)


def test_bad_records_and_difficulties():
    with pytest.raises(DataError, match=r"record in \[0, 200\), got 200"):
        faces().load(np.array([0, 200]))
    with pytest.raises(DataError, match="got -1"):
        faces().labels(np.array([-1]))
    with pytest.raises(IndexError, match="identity 50 of 50"):
        faces().identity_names[50]
    with pytest.raises(DataError, match=r"pose must be within \[0, 2\], got 3"):
        Difficulty(pose=3.0)

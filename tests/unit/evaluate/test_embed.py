"""Embedding for evaluation: modes, flip-sum, unit length, each image once."""

import numpy as np
import pytest
import torch
from torch import nn

from manyface.base.errors import NonFiniteError
from manyface.base.random import torch_generator
from manyface.evaluate import embed_source, make_embed_function

from .conftest import CodedSource, embed_pixels


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.BatchNorm1d(3 * 8 * 8)
        self.linear = nn.Linear(3 * 8 * 8, 5)
        generator = torch_generator(0, "tiny")
        with torch.no_grad():
            self.linear.weight.normal_(generator=generator)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.frozen(self.norm(pixels).flatten(1)))


@pytest.fixture
def images(source: CodedSource) -> torch.Tensor:
    return source.load(np.arange(6))


def test_flip_sum_of_normalised_pixels_in_evaluation_mode(images: torch.Tensor) -> None:
    net = TinyNet()
    found = make_embed_function(net)(images)
    pixels = (images.permute(0, 3, 1, 2).float() - 127.5) / 127.5
    net.eval()
    with torch.no_grad():
        total = net(pixels) + net(pixels.flip(-1))
    expected = total / total.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32


def test_mirror_images_embed_alike_with_flip_only(images: torch.Tensor) -> None:
    net, mirrored = TinyNet(), images.flip(2)
    with_flip, without = make_embed_function(net), make_embed_function(net, flip=False)
    torch.testing.assert_close(with_flip(images), with_flip(mirrored))
    assert (without(images) - without(mirrored)).abs().max() > 1e-2


def test_modes_and_statistics_are_left_as_they_were(images: torch.Tensor) -> None:
    net = TinyNet().train()
    net.frozen.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = make_embed_function(net)(images)
    assert (net.training, net.norm.training, net.frozen.training) == (True, True, False)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert not found.requires_grad
    assert not found.is_inference()


def test_modes_are_restored_after_an_error() -> None:
    net = TinyNet().train()
    with pytest.raises(RuntimeError):
        make_embed_function(net)(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
    assert net.training


def test_function_follows_the_network_as_it_trains(images: torch.Tensor) -> None:
    net = TinyNet()
    embed = make_embed_function(net)
    before = embed(images)
    with torch.no_grad():
        net.linear.weight.neg_()
        net.linear.bias.neg_()
    torch.testing.assert_close(embed(images), -before)


def test_autocast_is_close_to_full_precision(images: torch.Tensor) -> None:
    net = TinyNet()
    exact = make_embed_function(net)(images)
    found = make_embed_function(net, autocast=torch.bfloat16)(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_each_distinct_image_is_embedded_once(source: CodedSource, batch_size: int) -> None:
    indices = np.array([5, 3, 5, 5, 40, 3, 0])
    found = embed_source(embed_pixels, source, indices, batch_size=batch_size)
    assert sorted(source.loaded) == [0, 3, 5, 40]
    expected = embed_pixels(source.load(indices)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_images_give_no_embeddings(source: CodedSource) -> None:
    assert len(embed_source(embed_pixels, source, np.zeros(0, dtype=np.int64))) == 0


def test_a_loading_error_reaches_the_caller(source: CodedSource) -> None:
    with pytest.raises(IndexError):
        embed_source(embed_pixels, source, np.array([0, 10**6]), batch_size=1)


def test_embedding_that_is_not_finite_is_named(source: CodedSource) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return embed_pixels(images) * torch.tensor(float("nan"))

    with pytest.raises(NonFiniteError, match="image 3 of coded"):
        embed_source(broken, source, np.array([9, 3]))

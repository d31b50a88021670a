"""Every registered net: at full size on the meta device, and with real values at shallow depth."""

from typing import Any

import pytest
import torch
from torch import nn

from manyface.backbones import BACKBONES, Backbone, create_backbone
from manyface.backbones.ir import IRNet
from manyface.backbones.iresnet import IResNet
from manyface.backbones.mobilefacenet import MobileFaceNet
from manyface.backbones.vit import VisionTransformer

DIM = 24
# Depth costs time and adds no kind of layer. test_cost runs every net as registered, at full size.
SHALLOW: dict[type, dict[str, Any]] = {
    IResNet: {"depths": (1, 1, 2, 1)},
    IRNet: {"depths": (1, 1, 2, 1)},
    MobileFaceNet: {"blocks": (2, 1, 1, 1)},
    VisionTransformer: {"dim": 64, "depth": 2},
}


def shallow_options(name: str) -> dict[str, Any]:
    return SHALLOW.get(BACKBONES[name].func, {})


def distinct_when_shallow() -> list[str]:
    """One name of each set of nets that `SHALLOW` makes equal."""
    forms = {}
    for name, builder in BACKBONES.items():
        kept = {
            key: builder.keywords[key] for key in builder.keywords.keys() - shallow_options(name)
        }
        forms.setdefault((builder.func, str(sorted(kept.items()))), name)
    return list(forms.values())


NAMES = distinct_when_shallow()


def build(name: str, *, image_size: int = 32, **options: Any) -> Backbone:
    chosen = {**shallow_options(name), **options}
    return create_backbone(name, embedding_size=DIM, image_size=image_size, **chosen)


def images(batch: int, size: int = 32) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", NAMES)
def test_full_size_has_the_stated_shape_and_dtype(name: str) -> None:
    net = create_backbone(name, device="meta")
    embeddings = net(torch.empty(2, 3, 112, 112, device="meta"))
    assert embeddings.shape == (2, 512)
    assert embeddings.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_are_finite(name: str) -> None:
    net = build(name, image_size=48)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # the small nets start some at 0, on purpose
            nn.init.ones_(module.weight)
    embeddings = net(images(4, 48))
    assert embeddings.shape == (4, DIM)
    weights = torch.linspace(-1, 1, 4 * DIM).view(4, DIM)
    (embeddings * weights).sum().backward()
    for parameter_name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic_and_independent_of_batch_mates(name: str) -> None:
    net = build(name, dropout=0.5).eval()
    batch = images(3)
    with torch.no_grad():
        together, again, alone = net(batch), net(batch), net(batch[:1])
    assert torch.equal(together, again)
    # Another batch size may take another convolution algorithm: rounding, relative to the largest.
    largest = float(together.abs().max())
    torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-3 * largest)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip_gives_the_same_embeddings(name: str) -> None:
    net, other = build(name, seed=1), build(name, seed=2)
    with torch.no_grad():
        net.train()(images(4))  # running statistics move
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net.eval()(images(2)), other.eval()(images(2)))
    assert all(value.is_contiguous() for value in net.state_dict().values())


@pytest.mark.parametrize("name", NAMES)
def test_first_values_depend_on_the_seed_only(name: str) -> None:
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first, same, other = build(name, seed=5), build(name, seed=5), build(name, seed=6)
    assert torch.equal(torch.rand(1), expected_next), "building a net moved the global generator"
    for (key, one), two in zip(first.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.equal(one, two), key
        assert one.isfinite().all(), key
    differing = [
        not torch.equal(one, two)
        for one, two in zip(first.parameters(), other.parameters(), strict=True)
        if one.ndim > 1
    ]
    assert all(differing)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_gives_float32_embeddings_near_those_of_fp32(name: str) -> None:
    net = build(name).eval()
    with torch.no_grad():
        plain = net(images(2))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = net(images(2))
    assert mixed.dtype == torch.float32
    cosine = nn.functional.cosine_similarity(plain, mixed)
    assert cosine.min() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_activation_checkpointing_changes_no_bit(name: str) -> None:
    plain, thrifty = build(name), build(name, activation_checkpointing=True)
    results = []
    for net in (plain, thrifty):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # paths and tokens are dropped alike
            embeddings = net(images(3))
            embeddings.pow(3).sum().backward()
        results.append(embeddings)
    assert torch.equal(*results)
    for (key, one), two in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None), key
        assert one.grad is None or torch.equal(one.grad, two.grad), key  # type: ignore[arg-type]
    for (key, one), two in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        assert torch.equal(one, two), key

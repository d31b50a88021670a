"""Published weights must load: names, shapes and outputs against slow transcriptions
(manyface.testing.published)."""

import pytest
import torch

from manyface.backbones import BACKBONES, create_backbone
from manyface.backbones.recognise import architecture_of
from manyface.testing.published import PUBLISHED, Weights, random_weights

OURS = {"tiny", "small", "vit_mini"}
NAMED = [name for name in PUBLISHED if name in BACKBONES]


def test_every_net_but_our_own_has_a_transcription() -> None:
    assert set(NAMED) == set(BACKBONES) - OURS


@pytest.mark.parametrize("name", NAMED)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    net = create_backbone(name, device="meta")
    found = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert found == PUBLISHED[name].shapes


@pytest.mark.parametrize("name", ["r18", "mbf", "mbf_large", "ir_18", "vit_t"])
def test_outputs_are_those_of_the_transcription(name: str) -> None:
    published = PUBLISHED[name]
    state = random_weights(published.shapes)
    net = create_backbone(name).eval()
    net.load_state_dict(state, strict=True)
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    weights = Weights(state)
    with torch.no_grad():
        expected = published.compute(weights, images)
        actual = net(images)
    assert weights.read | published.unread == set(state)
    scale = expected.abs().max()
    assert scale > 0.1
    assert (actual - expected).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("embedding_size, image_size", [(512, 112), (40, 48)])
def test_the_net_of_a_state_dict_is_found(name: str, embedding_size: int, image_size: int) -> None:
    net = create_backbone(name, embedding_size=embedding_size, image_size=image_size, device="meta")
    found = architecture_of(net.state_dict())
    assert found is not None
    assert (found.name, found.embedding_size, found.options) == (name, embedding_size, {})
    # 5x5 patches are all that a transformer has seen of 48 pixels: 45 to 53.
    assert found.image_size == image_size
    again = found.build(device="meta").state_dict()
    assert {k: v.shape for k, v in again.items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


@pytest.mark.parametrize(
    "name, options",
    [
        ("r18", {"depths": (1, 2, 3, 1)}),
        ("ir_18", {"depths": (1, 1, 2, 1)}),
        ("mbf", {"blocks": (1, 2, 1, 1), "scale": 1}),
        ("vit_t", {"dim": 64, "depth": 2}),
        ("tiny", {"stem_width": 8, "widths": (8, 12), "depths": (0, 2), "activation": "relu"}),
    ],
)
def test_nets_of_other_depths_and_widths_are_found(name: str, options: dict) -> None:
    net = create_backbone(name, embedding_size=8, image_size=32, device="meta", **options)
    found = architecture_of(net.state_dict())
    assert found is not None
    assert (found.name, dict(found.options), found.image_size) == (name, options, 32)


def test_state_dicts_of_nothing_known() -> None:
    assert architecture_of({"fc.weight": torch.zeros(2, 2)}) is None
    assert architecture_of({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}) is None
    assert architecture_of({"stem.0.weight": torch.zeros(3)}) is None

"""The averaged copy against the recurrence written out in float64."""

from typing import Literal

import pytest
import torch

from manyface.backbones import AveragedNet, Backbone, create_backbone
from manyface.base.errors import CheckpointError, ConfigError


def net(seed: int = 0) -> Backbone:
    return create_backbone("tiny", embedding_size=8, image_size=32, seed=seed)


def walk(source: Backbone, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        source(torch.randn(4, 3, 32, 32, generator=generator))  # running statistics move


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_average_follows_the_recurrence(buffers: Literal["average", "copy"]) -> None:
    source = net()
    average = AveragedNet(source, decay=0.5, buffers=buffers)
    expected = {k: v.double() for k, v in source.state_dict().items()}
    parameters = {name for name, _ in source.named_parameters()}
    for step, decay in enumerate([0.1, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 0.4, 7 / 16, 8 / 17, 0.5]):
        walk(source, step)
        average.update(source)
        for name, value in source.state_dict().items():
            copied = not value.is_floating_point() or (name not in parameters and buffers == "copy")
            kept = 0.0 if copied else decay
            expected[name] = kept * expected[name] + (1 - kept) * value.double()
    for name, value in average.net.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)
    assert average.num_updates == 9


def test_the_copy_is_frozen_in_eval_mode_and_apart() -> None:
    source = net().train()
    average = AveragedNet(source, decay=0.9)
    assert source.training
    assert not any(module.training for module in average.net.modules())
    assert not any(parameter.requires_grad for parameter in average.net.parameters())
    before = average.net.get_parameter("fc.weight").clone()
    walk(source, 0)
    assert torch.equal(average.net.get_parameter("fc.weight"), before)


def test_state_goes_on_bit_for_bit() -> None:
    source = net()
    average = AveragedNet(source, decay=0.999)
    walk(source, 0)
    average.update(source)
    resumed = AveragedNet(net(seed=4), decay=0.999)
    resumed.load_state_dict(average.state_dict())
    walk(source, 1)
    for each in (average, resumed):
        each.update(source)
    for name, value in average.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"in \[0, 1\), got 1"):
        AveragedNet(net(), decay=1.0)
    with pytest.raises(CheckpointError, match="num_updates"):
        AveragedNet(net(), decay=0.9).load_state_dict(net().state_dict())

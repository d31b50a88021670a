"""Precision islands, token masking, stochastic depth, compilation."""

import torch
from torch import Tensor, nn

from manyface.backbones import create_backbone
from manyface.backbones.vit import VisionTransformer, _put_back, _take_kept


def test_the_end_runs_in_fp32_under_autocast() -> None:
    net = create_backbone("r18", embedding_size=8, image_size=16).eval()
    seen: dict[str, torch.dtype] = {}

    def note(name: str) -> None:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = output.dtype

        net.get_submodule(name).register_forward_hook(hook)

    for name in ("layer1.0.conv1", "fc", "features"):
        note(name)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        net(torch.zeros(1, 3, 16, 16))
    assert seen == {
        "layer1.0.conv1": torch.bfloat16,
        "fc": torch.float32,
        "features": torch.float32,
    }


def test_masked_tokens_come_back_in_place() -> None:
    tokens = torch.arange(2 * 6 * 3, dtype=torch.float32).view(2, 6, 3)
    places = torch.tensor([[3, 1, 5, 0, 2, 4], [0, 1, 2, 3, 4, 5]])
    kept = _take_kept(tokens, places, num_kept=4)
    assert torch.equal(kept[0], tokens[0, [3, 1, 5, 0]])
    restored = _put_back(kept, places, torch.full((1, 1, 3), -1.0))
    expected = tokens.clone()
    expected[0, [2, 4]] = -1
    expected[1, [4, 5]] = -1
    assert torch.equal(restored, expected)


def test_masking_acts_in_training_only_and_leaves_the_stated_share() -> None:
    net = create_backbone(
        "vit_t", embedding_size=8, image_size=96, depth=1, mask_ratio=0.25, drop_path=0.0
    )
    assert isinstance(net, VisionTransformer)
    counts: list[int] = []
    net.blocks[0].register_forward_hook(lambda _, inputs, __: counts.append(inputs[0].shape[1]))
    net(torch.zeros(2, 3, 96, 96))
    with torch.no_grad():
        net.eval()(torch.zeros(2, 3, 96, 96))
    assert counts == [75, 100]


def test_the_mask_token_is_trained_only_where_tokens_are_masked() -> None:
    for ratio in (0.0, 0.1):
        net = create_backbone("vit_t", mask_ratio=ratio, device="meta")
        assert net.get_parameter("mask_token").requires_grad == (ratio > 0)


def test_stochastic_depth_keeps_the_mean() -> None:
    net = create_backbone("vit_t", image_size=16, depth=2, drop_path=0.5)
    block = net.get_submodule("blocks.1").train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        thinned = block._thin(torch.ones(4000, 1, 1))  # type: ignore[operator]
    assert set(thinned.unique().tolist()) == {0.0, 2.0}
    assert abs(thinned.mean().item() - 1) < 0.1


def test_compiles_without_changing_values() -> None:
    def build() -> nn.Module:
        return create_backbone(
            "tiny", embedding_size=8, image_size=32, activation_checkpointing=True
        )

    plain, compiled = build(), build()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for run in (plain, torch.compile(compiled, backend="aot_eager")):
        run(images).pow(3).sum().backward()
    for (name, one), two in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, msg=name)
    for (name, one), two in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(one, two, msg=name)

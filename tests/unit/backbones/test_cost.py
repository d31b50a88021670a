"""The table in docs/backbones.md is recomputed, and agrees with the published figures."""

import re
from pathlib import Path

import pytest

from manyface.backbones import BACKBONES, BackboneCost, backbone_cost

PAGE = Path(__file__).parents[3] / "docs" / "backbones.md"
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\| ([\d.]+) M \| ([\d.]+) G \|$", re.MULTILINE)
# insightface's own table and papers: million parameters, giga-MACs
PUBLISHED = {
    "r18": (24.0, 2.61),
    "r34": (34.1, 4.46),
    "r50": (43.6, 6.31),
    "r100": (65.2, 12.09),
    "r200": (118.8, 23.42),
}


@pytest.fixture(scope="module")
def costs() -> dict[str, BackboneCost]:
    return {name: backbone_cost(name) for name in BACKBONES}


def test_the_page_lists_every_net_with_its_cost(costs: dict[str, BackboneCost]) -> None:
    expected = {
        name: (f"{cost.num_parameters / 1e6:.2f}", f"{cost.macs_per_image / 1e9:.2f}")
        for name, cost in costs.items()
    }
    written = {name: (parameters, macs) for name, parameters, macs in ROW.findall(PAGE.read_text())}
    assert written == expected


def test_iresnets_cost_what_is_published(costs: dict[str, BackboneCost]) -> None:
    for name, (parameters, macs) in PUBLISHED.items():
        assert costs[name].num_parameters / 1e6 == pytest.approx(parameters, abs=0.06)
        assert costs[name].macs_per_image / 1e9 == pytest.approx(macs, abs=0.006)


def test_cost_by_hand() -> None:
    """A net small enough to count on paper: stem, three strided convolutions, linear layer."""
    options = {"stem_width": 2, "widths": (3, 4, 5), "depths": (0, 0, 0)}
    cost = backbone_cost("tiny", embedding_size=7, image_size=16, **options)
    convolutions = {(2, 3): 8 * 8, (3, 2): 4 * 4, (4, 3): 2 * 2, (5, 4): 1}  # (out, in): positions
    kernels = sum(9 * num_out * num_in for num_out, num_in in convolutions)
    macs = sum(9 * n_out * n_in * places for (n_out, n_in), places in convolutions.items())
    norms_and_slopes = 3 * (2 + 3 + 4 + 5)
    assert cost.num_parameters == kernels + norms_and_slopes + 5 * 7 + 2 * 7
    assert cost.macs_per_image == macs + 5 * 7

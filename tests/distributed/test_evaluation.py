"""`manyface evaluate` on several ranks: each image embedded by one of them, judged by the first."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import on_ranks, outcomes
from tiny_recipe import TINY

from manyface.cli import main
from manyface.config import parse_config
from manyface.evaluate import all_pairs, kept_features
from manyface.model import FaceModel, Preprocessing
from manyface.train.run import train


class Net(torch.nn.Module):
    """float32 [B, 3, 8, 8] -> [B, 24]; counts what it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, pixels):
        self.seen += len(pixels)
        return pixels.mean(dim=2).flatten(1)


def judge(faces: Path, output: Path) -> tuple[int, int, int]:
    """Exit code, images that this rank's net saw, and comparisons that it made."""
    import manyface.cli.evaluate as verb

    net = Net()
    model = FaceModel(
        net, name="means", weights="w", embedding_size=24,
        preprocessing=Preprocessing(8, flip=False), device=torch.device("cpu"),
    )  # fmt: skip
    before = verb.open_model, kept_features._PART, all_pairs.scan_all_pairs
    verb.open_model, kept_features._PART = (lambda path, **options: model), 16
    scans = []

    def scan(*given, **options):
        scans.append(torch.get_num_threads())
        return before[2](*given, **options)

    all_pairs.scan_all_pairs = scan
    try:
        words = ["evaluate", "net", "--on", f"all={faces}", "--output", str(output)]
        return main([*words, "--batch-size", "8"]), net.seen, len(scans)
    finally:
        verb.open_model, kept_features._PART, all_pairs.scan_all_pairs = before


def verify(run: Path) -> int:
    return main(["evaluate", str(run), "--set", "evaluation.num_pairs=60"])


@pytest.fixture
def faces(tmp_path):
    """100 images of 20 people: seven parts of 16."""
    rng = np.random.default_rng(0)
    for person in range(20):
        look = rng.integers(60, 195, (8, 8, 3))
        folder = tmp_path / "faces" / f"p{person:02}"
        folder.mkdir(parents=True)
        for image in range(5):
            pixels = np.clip(look + rng.integers(-200, 200, look.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.bmp")
    return tmp_path / "faces"


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_work_and_one_judges(faces, tmp_path, size):
    assert judge(faces, tmp_path / "alone") == (0, 100, 1)
    found = on_ranks(judge, size, faces, tmp_path / "together")
    assert [code for code, _, _ in found] == [0] * size
    assert sum(seen for _, seen, _ in found) == 100
    assert [scans for _, _, scans in found] == [1] + [0] * (size - 1)
    both = [(tmp_path / place / "scores.json").read_bytes() for place in ("alone", "together")]
    assert both[0] == both[1]


def test_an_image_that_one_rank_cannot_read_ends_all(faces, tmp_path):
    (faces / "p19/4.bmp").write_bytes(b"none")
    found = outcomes(judge, 2, faces, tmp_path / "out")
    assert [is_right for is_right, _ in found] == [True, True]
    assert [result[0] for _, result in found] == [1, 1]


def test_ranks_verify_a_run_together(tmp_path, capsys):
    options = [*TINY, f"run.directory={tmp_path}", "run.name=few", "evaluation.num_pairs=80"]
    train(parse_config("", options))
    assert verify(tmp_path / "few") == 0
    (alone,) = (tmp_path / "few/evaluation").glob("step-*/synthetic.npz")
    before = alone.read_bytes()
    alone.unlink()
    assert on_ranks(verify, 2, tmp_path / "few") == [0, 0]
    with np.load(alone) as found, np.load(BytesIO(before)) as expected:
        np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-6)
    assert json.loads((tmp_path / "few/result.json").read_text())
    assert not list((tmp_path / "few/evaluation").glob("**/.*.tmp"))

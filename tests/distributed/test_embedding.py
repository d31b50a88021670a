"""`manyface embed` on several ranks: one file, the same as of one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import on_ranks

from manyface.cli import main, using
from manyface.model import FaceModel, Preprocessing


class Net(torch.nn.Module):
    """float32 [B, 3, 8, 8] -> [B, 6]."""

    def forward(self, pixels):
        return pixels.mean(dim=2).flatten(1)[:, ::4]


def embed(folder: Path, output: Path) -> int:
    model = FaceModel(
        Net(), name="means", weights="w", embedding_size=6,
        preprocessing=Preprocessing(8, flip=False), device=torch.device("cpu"),
    )  # fmt: skip
    before, using.open_model = using.open_model, lambda path, **options: model
    try:
        return main(["embed", "net", str(folder), "-o", str(output), "--batch-size", "64"])
    finally:
        using.open_model = before


@pytest.fixture
def faces(tmp_path):
    """2,100 images: three parts."""
    rng = np.random.default_rng(0)
    for person in range(3):
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for image in range(700):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image:03}.bmp")
    (tmp_path / "faces/p1/333.bmp").write_bytes(b"none")
    return tmp_path / "faces"


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_write_one_file(faces, tmp_path, size):
    alone, together = tmp_path / "alone.safetensors", tmp_path / "together.safetensors"
    assert embed(faces, alone) == 0
    assert on_ranks(embed, size, faces, together) == [0] * size
    assert together.read_bytes() == alone.read_bytes()
    left_out = [path.with_suffix(".left_out.tsv").read_text() for path in (alone, together)]
    assert left_out[0] == left_out[1]
    assert left_out[0].startswith("p1/333.bmp\t")
    assert not list(tmp_path.glob("*.parts"))

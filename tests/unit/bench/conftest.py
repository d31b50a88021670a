"""A small stand-in for a checkout of insightface: its names and signatures, none of its code."""

from pathlib import Path

import pytest

HEAD = """
import torch


class PartialFC_V2(torch.nn.Module):
    def __init__(self, margin_loss, embedding_size, num_classes, sample_rate=1.0, fp16=False):
        assert torch.distributed.get_world_size() == 1
        super().__init__()
        self.margin, self.size, self.fp16 = margin_loss, int(sample_rate * num_classes), fp16
        self.weight = torch.nn.Parameter(torch.normal(0, 0.01, (num_classes, embedding_size)))

    def forward(self, local_embeddings, local_labels):
        scores = torch.rand(len(self.weight)).cuda()
        scores[local_labels] = 2.0
        ids = scores.topk(self.size).indices.sort().values
        unit = torch.nn.functional.normalize(self.weight[ids])
        logits = torch.nn.functional.normalize(local_embeddings) @ unit.T
        assert logits.dtype == (torch.bfloat16 if self.fp16 else torch.float32)
        targets = torch.searchsorted(ids, local_labels.cuda())
        return torch.nn.functional.cross_entropy(self.margin(logits.float(), targets), targets)
"""
LOSSES = """
import torch


class CombinedMarginLoss(torch.nn.Module):
    def __init__(self, s, m1, m2, m3, interclass_filtering_threshold=0):
        super().__init__()
        self.scale, self.margin = s, m3

    def forward(self, logits, labels):
        own = torch.nn.functional.one_hot(labels, logits.shape[1])
        return self.scale * (logits - self.margin * own)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as a clone of insightface has it."""
    folder = tmp_path / "insightface/recognition/arcface_torch"
    folder.mkdir(parents=True)
    (folder / "partial_fc_v2.py").write_text(HEAD)
    (folder / "losses.py").write_text(LOSSES)
    return tmp_path / "insightface"

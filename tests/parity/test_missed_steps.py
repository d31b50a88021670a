"""A head whose optimizer makes up the steps that its rows miss, against SGD on all rows."""

import pytest
import torch

import manyface as mf
from manyface.centers import RowSGD
from manyface.softmax import dense_margin_softmax

BATCH, DIM, CLASSES = 48, 64, 700
MARGIN = mf.CosFace(0.3)


@pytest.mark.parametrize("parts", [1, 2], ids=["one batch", "accumulated"])
@pytest.mark.parametrize("mode", ["lazy-exact", "decay-only"])
def test_partial_fc_with_missed_steps_equals_dense_sgd(mode: str, parts: int) -> None:
    """insightface's rule: each row decays and drifts in each step. decay-only without momentum."""
    momentum = 0.9 if mode == "lazy-exact" else 0.0
    ours = mf.PartialFC(
        num_classes=CLASSES,
        dim=DIM,
        margin=MARGIN,
        scale=16.0,
        sample_rate=0.1,
        chunk_size=30,
        dtype=torch.float64,
        optimizer=RowSGD(momentum, 5e-2, mode, max_window=5),  # type: ignore[arg-type]
    )
    theirs = torch.nn.Parameter(ours.centers.weight.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, weight_decay=5e-2)
    for step in range(13):
        draw = torch.Generator().manual_seed(step)
        embeddings = torch.randn(BATCH, DIM, generator=draw, dtype=torch.float64)
        labels = torch.randint(CLASSES, (BATCH,), generator=draw)
        optimizer.zero_grad()
        micro_batches = zip(embeddings.chunk(parts), labels.chunk(parts), strict=True)
        for some, own in micro_batches:
            ids = ours.select(own).ids
            assert ids is not None
            targets = torch.searchsorted(ids, own)
            oracle = dense_margin_softmax(some, theirs[ids], targets, margin=MARGIN, scale=16.0)
            (oracle / parts).backward()
            (ours(some, own) / parts).backward()
        optimizer.step()
        if step % 2:  # the unfused mode
            ours.row_gradients()
        ours.step(0.1)
        if step == 7:  # a resume in mid-window
            state = {name: value.clone() for name, value in ours.state_dict().items()}
            ours.load_state_dict(state)
    ours.centers.flush()
    torch.testing.assert_close(ours.centers.weight, theirs.detach(), rtol=1e-11, atol=1e-13)

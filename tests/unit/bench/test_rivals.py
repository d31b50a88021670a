"""Rivals train, say what they take, and a checkout that is none is a line.

The checkout is a stand-in (conftest.py); MANYFACE_INSIGHTFACE=DIR runs the real one too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from manyface.base.errors import ConfigError
from manyface.bench import METHODS, Job, Shape, compare, methods_here
from manyface.bench.arcface_torch import find_folder
from manyface.bench.rivals import RowSparseRun, build_eager, build_linear_cross_entropy

REAL = os.environ.get("MANYFACE_INSIGHTFACE")
LABELS = torch.arange(8)
RIVALS = [name for name, method in METHODS.items() if method.rival]


@pytest.fixture(autouse=True)
def no_group_is_left() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def small(checkout: Path | None = None, **more: object) -> Shape:
    where = {} if checkout is None else {"checkout": str(checkout)}
    sizes = {"classes": 300, "batch": 8, "dim": 16, "sample_rate": 0.1, "steps": 1}
    return Shape(**{**sizes, **where, **more})


@pytest.mark.parametrize("name", RIVALS)
def test_centers_turn_to_their_embeddings(name: str, checkout: Path) -> None:
    run = METHODS[name].build(small(checkout))
    before = run._rows.detach().clone()

    def own_cosines() -> torch.Tensor:
        return torch.cosine_similarity(run._rows[LABELS], run._embeddings).mean()

    first = own_cosines()
    for _ in range(3):
        run.plan(LABELS)
        run.step(LABELS)
    assert own_cosines() > first + 0.3
    moved = int((run._rows != before).any(dim=1).sum())
    assert moved <= 3 * 30 if name == "partial_fc_2020" else moved == 300
    assert run._embeddings.grad is not None


def test_row_sparse_of_all_rows_is_eager() -> None:
    shape = small(sample_rate=1.0, dtype="float64")
    sparse, eager = RowSparseRun(shape), build_eager(shape)
    for _ in range(3):
        sparse.step(LABELS)
        eager.step(LABELS)
    torch.testing.assert_close(sparse._rows, eager._rows.detach())
    torch.testing.assert_close(sparse._embeddings.grad, eager._embeddings.grad)


def test_linear_cross_entropy_is_the_softmax_without_a_margin() -> None:
    run = build_linear_cross_entropy(small(dtype="float64", batch=20))
    rows, embeddings = run._rows.detach(), run._embeddings.detach()
    labels = torch.arange(20)
    normalize = torch.nn.functional.normalize
    expected = torch.nn.functional.cross_entropy(
        64 * normalize(embeddings) @ normalize(rows).T, labels
    )
    torch.testing.assert_close(run._loss(run._embeddings, labels).detach(), expected)


def test_cuda_is_only_left_out_while_their_code_runs(checkout: Path) -> None:
    before = torch.Tensor.cuda, torch.nn.Module.cuda
    run = METHODS["arcface_torch"].build(small(checkout))
    run.step(LABELS)
    assert (torch.Tensor.cuda, torch.nn.Module.cuda) == before
    said = run.figures()
    assert said["checkout"] == str(checkout / "recognition/arcface_torch")
    assert len(said["sha256"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize("name", RIVALS)
def test_what_it_takes_is_never_more_than_computed(name: str, checkout: Path) -> None:
    shape = small(checkout, classes=20_000, dim=64, batch=64, sample_rate=0.5)
    found = compare([Job(name, name, shape)], report=lambda *_: None)["methods"][name]
    assert found["resident_bytes"] + found["peak_extra_bytes"] <= found["needed_bytes"]


@pytest.mark.skipif(REAL is None, reason="MANYFACE_INSIGHTFACE names no checkout of insightface")
@pytest.mark.parametrize("name", ["arcface_torch", "arcface_torch_bf16"])
def test_the_real_one(name: str) -> None:
    job = Job(name, name, small(Path(str(REAL))))
    found = compare([job], report=lambda *_: None)["methods"][name]
    assert found["step_seconds"]["median"] > 0
    assert found["product_dtype"] == ("bfloat16" if name.endswith("bf16") else "float32")


@pytest.mark.parametrize("inside", [".", "recognition/arcface_torch"])
def test_a_checkout_or_its_folder(inside: str, checkout: Path) -> None:
    assert find_folder(str(checkout / inside)) == checkout / "recognition/arcface_torch"


def test_without_a_checkout_it_is_not_among_those_that_can_run(checkout: Path) -> None:
    assert not any(name.startswith("arcface") for name in methods_here(small()))
    assert methods_here(small(checkout, files=str(checkout))) == list(METHODS)
    assert "partial_bf16_files" not in methods_here(small(checkout))
    with pytest.raises(ConfigError, match="--rival arcface_torch=DIR"):
        Job("arcface_torch", "arcface_torch", small())
    with pytest.raises(ConfigError, match="float32 rows only, got dtype 'float64'"):
        Job("arcface_torch", "arcface_torch", small(checkout, dtype="float64"))


@pytest.mark.parametrize("wrong", ["import absent", "x = 1", "1 +"])
def test_a_file_that_is_not_theirs_is_a_line(wrong: str, checkout: Path) -> None:
    (checkout / "recognition/arcface_torch/partial_fc_v2.py").write_text(wrong)
    with pytest.raises(ConfigError, match=r"cannot use .*partial_fc_v2\.py: \w+Error: .*takes a"):
        METHODS["arcface_torch"].build(small(checkout))


def test_a_torch_without_linear_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    assert "linear_cross_entropy" not in methods_here(small())
    with pytest.raises(ConfigError, match=r"is not in this torch \(2\."):
        Job("x", "linear_cross_entropy", small())

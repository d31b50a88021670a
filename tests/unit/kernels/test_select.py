"""Which path is chosen, and the words for it."""

import pytest
import torch

from manyface.kernels import choose, select

GPU = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0, and triton."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(select, "_has_triton", lambda: True)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose(GPU)) == "torch (no CUDA device)"


def test_with_one(gpu: None) -> None:
    assert str(choose(GPU)) == "triton (a GPU)"
    assert choose(GPU, torch.bfloat16).uses_triton
    assert str(choose(torch.device("cpu"))) == "torch (rows are on cpu)"
    assert str(choose(GPU, torch.float64)) == "torch (float64 rows)"


def test_an_old_one(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert str(choose(GPU)) == "torch (compute capability 7.5, 8.0 is needed)"


def test_without_triton(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_has_triton", lambda: False)
    expected = "torch (triton is not installed: pip install 'manyface[triton]')"
    assert str(choose(GPU)) == expected

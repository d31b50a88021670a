"""Which path is chosen, and the words for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from manyface.base.errors import ConfigError
from manyface.kernels import choose, cpu, select

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What was found out about this machine and what a test says of another one."""
    for found in (select._on_a_cpu, select._on_a_gpu):
        found.cache_clear()
    yield
    for found in (select._on_a_cpu, select._on_a_gpu):
        found.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0, and triton."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(select, "_has_triton", lambda: True)
    monkeypatch.setattr(select, "_has_c_compiler", lambda: True)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose(GPU)) == "torch (no CUDA device)"


def test_with_one(gpu: None) -> None:
    assert str(choose(GPU)) == "triton (a GPU)"
    assert choose(GPU, torch.bfloat16).language == "triton"
    assert str(choose(GPU, torch.float64)) == "torch (float64 rows)"


def test_a_gpu_is_asked_once_and_the_switch_each_time(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose(GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked again"))
    assert choose(GPU, torch.bfloat16) is first
    monkeypatch.setenv("MANYFACE_KERNELS", "torch")
    assert choose(GPU).language == "torch"


def test_an_old_one(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert str(choose(GPU)) == "torch (compute capability 7.5, 8.0 is needed)"


def test_without_triton(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_has_triton", lambda: False)
    expected = "torch (triton is not installed: pip install '.[triton]' in manyface's folder)"
    assert str(choose(GPU)) == expected


def test_without_a_c_compiler(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_has_c_compiler", lambda: False)
    assert str(choose(GPU)) == "torch (no C compiler (gcc, clang or CC))"


@pytest.mark.parametrize(
    "there, wish, found",
    [("gcc", None, True), ("clang", None, True), ("cc", None, False), ("gcc", "icc", False)],
)
def test_a_c_compiler_is_looked_for_as_triton_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str, wish: str | None, found: bool
) -> None:
    (tmp_path / there).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    if wish:
        monkeypatch.setenv("CC", wish)
    assert select._has_c_compiler() is found


def test_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "library", lambda: "no C++ compiler")
    assert str(choose(CPU)) == "torch (no C++ compiler)"
    assert str(choose(CPU, torch.float64)) == "torch (float64 rows)"


def test_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYFACE_KERNELS", "torch")
    assert str(choose(CPU)) == "torch (MANYFACE_KERNELS=torch)"
    monkeypatch.setenv("MANYFACE_KERNELS", "trton")
    with pytest.raises(ConfigError, match="must be auto or torch, got 'trton'"):
        choose(CPU)

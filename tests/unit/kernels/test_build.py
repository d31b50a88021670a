"""The library is compiled once, kept, and made again where it is broken; else there is a reason."""

from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest

from manyface.kernels.cpu import build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's cache folder of its own."""
    if isinstance(build.library(), str):
        pytest.skip("no compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path / "manyface"
    build.library.cache_clear()


def test_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(build.library(), CDLL)
    (kept,) = cache.iterdir()
    build.library.cache_clear()
    monkeypatch.setattr(build, "_built", lambda *_: pytest.fail("compiled again"))
    assert isinstance(build.library(), CDLL)
    assert kept.name.startswith("kernels-")


def test_a_broken_one_is_made_again(cache: Path) -> None:
    build.library()
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.unlink()  # not truncated in place: this process has it mapped
    kept.write_bytes(whole[:100])
    build.library.cache_clear()
    assert isinstance(build.library(), CDLL)
    assert len(kept.read_bytes()) == len(whole)


def test_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(build.library(), CDLL)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert build.library() == "no C++ compiler"


def test_a_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such option" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert build.library() == f"{broken} failed: no such option"

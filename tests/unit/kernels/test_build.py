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
    kept = next(cache.glob("*.so"))
    build.library.cache_clear()
    monkeypatch.setattr(build, "_built", lambda *_: pytest.fail("compiled again"))
    assert isinstance(build.library(), CDLL)
    assert kept.name.startswith("kernels-")


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_broken_one_is_made_again(cache: Path, length: int) -> None:
    build.library()
    kept = next(cache.glob("*.so"))
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:length])
    build.library.cache_clear()
    assert isinstance(build.library(), CDLL)
    assert kept.read_bytes() == whole


def test_nothing_is_loaded_from_a_folder_that_is_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No home: no cache, least of all one that is called ~ in the current folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(build.os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert isinstance(build.library(), CDLL)
    assert list(tmp_path.iterdir()) == []


def test_without_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/nowhere")
    assert str(build.library()).startswith("cannot compile: [Errno 2]")


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


def test_a_compiler_that_stammers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nprintf 'caf\\351'; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert str(build.library()).startswith(f"{broken} failed")

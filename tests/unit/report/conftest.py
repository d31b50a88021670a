"""The fake demo is made once; tests that spoil a run make their own."""

from pathlib import Path

import pytest

from .fake_runs import make_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("runs") / "demo")

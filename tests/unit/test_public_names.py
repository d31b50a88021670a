"""The public face: a name that is added or taken away is a decision, written here and in docs."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import manyface

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "AdaFace",
    "ArcFace",
    "CombinedMargin",
    "CosFace",
    "CurricularFace",
    "DynamicClassPool",
    "F2C",
    "FaceModel",
    "FullFC",
    "InterclassFilter",
    "MVSoftmax",
    "MagFace",
    "ManyfaceError",
    "Margin",
    "NegativeRule",
    "NormFace",
    "PartialFC",
    "SphereFace",
    "VirtualFC",
    "create_backbone",
    "load",
}


def test_public_names() -> None:
    assert set(manyface.__all__) == PUBLIC
    assert all(getattr(manyface, name).__doc__ for name in PUBLIC)


def test_names_are_found_when_they_are_used() -> None:
    assert set(dir(manyface)) >= PUBLIC | {"__version__"}
    with pytest.raises(AttributeError, match="no attribute 'FullFc'"):
        manyface.FullFc  # noqa: B018
    scope: dict[str, object] = {}
    exec("from manyface import *", scope)  # noqa: S102
    assert scope.keys() >= PUBLIC
    with pytest.raises(ImportError):
        exec("from manyface import absent", {})  # noqa: S102


def test_version_is_stated_once_and_has_a_changelog_entry() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manyface.__version__ == project["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(manyface.__version__)}\]", changelog, re.MULTILINE)


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    pinned = {name.lower().replace("_", "-") for name in pins}
    wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {re.split(r"[<>=!;\[ ]", requirement)[0] for requirement in wanted}
    assert names <= pinned

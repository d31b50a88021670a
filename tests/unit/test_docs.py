"""What the docs show works: code blocks run or parse, links lead somewhere, make targets exist."""

import re
import shlex
from pathlib import Path

import pytest

from manyface.cli.app import app
from manyface.config import parse_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
VERBS = {command.name for command in [*app.registered_commands, *app.registered_groups]}
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(page: Path, language: str) -> list[str]:
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_python_of_the_readme_runs() -> None:
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102  our own page


def test_recipe_of_the_readme_is_valid() -> None:
    (block,) = blocks(ROOT / "README.md", "toml")
    assert parse_config(block).data.path == "/data/faces"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_of_the_docs_parses(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_of_the_docs_exist(page: Path) -> None:
    for block in blocks(page, "bash"):
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "make":
                assert words[0] in TARGETS, line
            if program == "manyface":
                assert words[0] in VERBS, line
                parse_config("", [words[i + 1] for i, word in enumerate(words) if word == "--set"])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or (page.parent / target).exists(), target

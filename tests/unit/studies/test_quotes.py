"""Intervals that docs quote stand on a page of the studies: results that move take them along."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
_NUMBER = r"[-+]?\d+\.\d"
_INTERVAL = re.compile(rf"\[({_NUMBER}),\s({_NUMBER})\]")
_BEFORE = 60  # characters in which the value of an interval stands


def quoted(text: str) -> dict[str, set[tuple[float, ...]]]:
    """Each interval with what stands before it -> it behind each number there, without signs."""
    found = {}
    for match in _INTERVAL.finditer(text):
        before = text[max(0, match.start() - _BEFORE) : match.start()].rpartition("]")[2]
        ends = sorted(abs(float(each)) for each in match.groups())
        values = re.findall(_NUMBER, before)
        found[before + match[0]] = {(abs(float(value)), *ends) for value in values}
    return found


def of_the_pages() -> set[tuple[float, ...]]:
    texts = [path.read_text("utf-8") for path in (DOCS / "studies/small").glob("*.md")]
    return {each for text in texts for values in quoted(text).values() for each in values}


@pytest.mark.parametrize("name", ["which-head.md", "studies/README.md"])
def test_intervals_are_those_of_the_pages(name: str) -> None:
    pages = of_the_pages()
    paragraphs = re.split(r"\n(?=[-\n])", (DOCS / name).read_text("utf-8"))
    texts = [each for each in paragraphs if "benchmarks/results" not in each]
    found = {words: values for text in texts for words, values in quoted(text).items()}
    assert len(found) > 10
    assert [words for words, values in found.items() if not values & pages] == []


def test_an_interval_that_is_on_no_page_is_found() -> None:
    assert quoted("it lost 1.2 points [0.4, 2.0]").popitem()[1] == {(1.2, 0.4, 2.0)}
    assert quoted("-1.2 [-2.0, -0.4]").popitem()[1] == {(1.2, 0.4, 2.0)}
    assert quoted("0.952 [-2.0, -0.4]").popitem()[1] != {(1.2, 0.4, 2.0)}

"""Each test of a kernel runs in both languages."""

import pytest
from languages import LANGUAGES, Language, language_or_skip


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Skipped with a reason where it cannot run."""
    return language_or_skip(request.param)

"""R5: SIGTERM, SIGINT and SIGUSR1 at any moment end in a checkpoint of the last step."""

from pathlib import Path

import pytest
from stopping import stop_runs


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param(1, id="one"),
        pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(600)], id="twenty"),
        pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(7200)], id="two hundred"),
    ],
)
def test_a_stop_saves_what_was_trained(tmp_path: Path, stops: int) -> None:
    tally = stop_runs(tmp_path, stops=stops, seed=stops)
    print("FIGURE", tally.describe())
    assert not tally.problems, "\n".join(tally.problems)
    assert tally.saved + tally.nothing == tally.total == stops

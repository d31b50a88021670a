"""R5: SIGTERM, SIGINT and SIGUSR1 at any moment end in a checkpoint of the last step."""

import signal
import time
from pathlib import Path

import pytest
from launching import Attempt
from runs import Tiny
from stopping import stop_runs

from manyface.checkpoint import newest
from manyface.observe.available import available_bytes

GB = 10**9


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


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("settings", [(), ("train.checkpoint_every=3",)], ids=["idle", "saving"])
def test_two_gigabytes_are_saved_in_time(tmp_path: Path, settings: tuple[str, ...]) -> None:
    """500,000 centers of 512 numbers and their momentum; with a save just begun too."""
    if available_bytes() < 10 * GB:
        pytest.skip("needs 10 GB of free memory")
    more = ("data.synthetic.num_identities=500000", "data.synthetic.images_per_identity=2")
    more += ("backbone.embedding_size=512", "head.sample_rate=0.001", *settings)
    tiny = Tiny(tmp_path / "tiny", steps=10**6, every=0, evaluate=0, more=more)
    with Attempt(tiny.words(), tmp_path / "attempt", forked=False) as attempt:
        assert attempt.wait_for(lambda: tiny.last_step() >= 3, 300), attempt.log
        attempt.kill(attempt.agent, signal.SIGTERM)
        sent = time.monotonic()
        assert attempt.wait_for(lambda: "SIGTERM: saved" in attempt.log, 100), attempt.log
        committed = time.monotonic() - sent
        attempt.ended(100)
        ended = time.monotonic() - sent
    path = newest(tiny.checkpoints)
    assert path is not None
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"FIGURE {size / GB:.2f} GB committed {committed:.1f} s after SIGTERM, ended {ended:.1f}")
    assert size > 2 * GB
    assert tiny.newest == tiny.last_step()
    assert not tiny.check()
    assert committed <= 20

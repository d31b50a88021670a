"""R1: kill -9 at any moment, to anybody: nothing committed is lost, and the run ends bit-equal."""

import signal
import time
from pathlib import Path

import pytest
from killing import Campaign, Tally
from launching import Attempt
from runs import Tiny


def assert_nothing_was_lost(tally: Tally) -> None:
    assert not tally.problems, "\n".join(tally.problems)
    found = (tally.lost, tally.orphans, tally.lost_too_much, tally.unequal)
    assert found == (0, 0, 0, 0)


@pytest.mark.slow
def test_a_few_kills(tmp_path: Path) -> None:
    tally = Campaign(tmp_path, kills=2, steps=12, seed=3, share_aimed=1).run()
    assert tally.total >= 2
    assert_nothing_was_lost(tally)


@pytest.mark.slow
def test_a_rank_killed_when_it_is_done(tmp_path: Path) -> None:
    """The launcher ends; torch's own waits forever for a dead rank to hear that it may go."""
    tiny = Tiny(tmp_path, steps=6)
    with Attempt(tiny.words(), tmp_path / "attempt") as attempt:
        assert attempt.wait_for(lambda: tiny.last_step() > 0, 60), attempt.log
        attempt.kill(attempt.agent, signal.SIGSTOP)
        assert attempt.wait_for(lambda: tiny.is_done, 60), attempt.log
        time.sleep(2)  # until rank 1 has left training too
        attempt.kill(attempt.rank_pid(1))
        attempt.kill(attempt.agent, signal.SIGCONT)
        assert attempt.ended(20) is not None, attempt.log


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_forty_kills(tmp_path: Path) -> None:
    """Most of forked attempts, some of the program torchrun, some with other numbers of ranks."""
    tally = Campaign(tmp_path / "same", kills=30, steps=60, seed=1).run()
    assert_nothing_was_lost(tally)
    assert tally.in_save >= 10
    assert len(tally.by_phase) >= 5
    assert_nothing_was_lost(Campaign(tmp_path / "exec", kills=3, steps=25, forked=False).run())
    assert_nothing_was_lost(Campaign(tmp_path / "ranks", kills=8, steps=40, ranks=(1, 2, 3)).run())


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_kills(tmp_path: Path, seed: int) -> None:
    tally = Campaign(tmp_path, kills=250, seed=100 + seed).run()
    assert tally.total >= 250
    assert_nothing_was_lost(tally)

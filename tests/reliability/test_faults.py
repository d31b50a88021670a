"""R6 and R7: a rank that dies, hangs or is out of step ends the run in time and is named."""

import time
from pathlib import Path
from typing import Any

import pytest
from launching import Attempt
from runs import Tiny

DEATHS = ("SIGKILL", "SIGSEGV", "abort", "exception", "exit 0")
HANGS = ("sleep", "SIGSTOP", "interpreter held", "skip", "mismatch")
TIMEOUT = 3.0
STEP = 7
# Of a rank that died the others know at once, by its connections, and not when the two minutes of a
# collective are over. About 6 s go by; the rest is for a machine that others use too.
DEATH_SECONDS = 40
# Who hangs ends itself, long before the launcher, which waits for 30 s, would kill it; 9 s at most
# were seen. A stopped process cannot: it ends 33 s after the timeout.
HANG_SECONDS, STOPPED_SECONDS = TIMEOUT + 22, TIMEOUT + 80


def strikes(kind: str, *, rank: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "rank": rank, "step": STEP, **more}


def wait_for_fault(attempt: Attempt) -> float:
    """Until the fault has struck; when that was, about."""
    assert attempt.wait_for((attempt.folder / "struck").exists, 60), attempt.log
    return time.monotonic()


def complaints(attempt: Attempt) -> list[str]:
    """What ranks have said of a collective that failed."""
    return [line for line in attempt.log.splitlines() if "could not finish" in line]


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEATHS)
def test_a_rank_that_dies_is_named(tmp_path: Path, kind: str) -> None:
    tiny = Tiny(tmp_path / "tiny", steps=30)
    fault = strikes(kind, rank=2)
    with Attempt(tiny.words(), tmp_path / "attempt", ranks=4, faults=[fault]) as attempt:
        struck = wait_for_fault(attempt)
        assert attempt.ended(60) not in (0, None), attempt.log
        seconds = time.monotonic() - struck
        assert not attempt.orphans()
        said = complaints(attempt)
    print(f"FIGURE death {kind}: ended after {seconds:.1f} s, {len(said)} of 3 others said why")
    assert said, attempt.log
    assert all("rank 2" in text for text in said), said
    assert seconds < DEATH_SECONDS
    assert not tiny.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGKILL", "exception"])
def test_a_restarted_group_ends_bit_equal(tmp_path: Path, kind: str) -> None:
    whole, broken = Tiny(tmp_path / "whole", steps=20), Tiny(tmp_path / "broken", steps=20)
    with Attempt(whole.words(), tmp_path / "first", ranks=4) as attempt:
        assert attempt.ended(120) == 0, attempt.log
    fault = strikes(kind, rank=1)
    words = broken.words()
    with Attempt(words, tmp_path / "second", ranks=4, restarts=1, faults=[fault]) as attempt:
        struck = wait_for_fault(attempt)
        assert attempt.wait_for(lambda: broken.has_begun() == 2, 60), attempt.log
        seconds = time.monotonic() - struck
        assert attempt.ended(120) == 0, attempt.log
    print(f"FIGURE restart after {kind}: training again after {seconds:.1f} s")
    assert seconds < 60
    assert broken.losses() == whole.losses()
    assert broken.digest() == whole.digest()


@pytest.mark.slow
@pytest.mark.parametrize("kind", HANGS)
def test_a_rank_that_hangs_is_named(tmp_path: Path, kind: str) -> None:
    """torchrun waits 30 s for a rank that is stopped; any other one ends itself."""
    tiny = Tiny(tmp_path / "tiny", steps=30, more=(f"run.timeout_seconds={TIMEOUT}",))
    fault = strikes(kind, rank=1)
    with Attempt(tiny.words(), tmp_path / "at", ranks=3, faults=[fault]) as attempt:
        struck = wait_for_fault(attempt)
        assert attempt.ended(100) not in (0, None), attempt.log
        seconds = time.monotonic() - struck
        assert not attempt.orphans()
        said = complaints(attempt)
    print(f"FIGURE hang {kind}: ended after {seconds:.1f} s with a timeout of {TIMEOUT:.0f} s")
    print("\n".join(said))
    assert seconds < (STOPPED_SECONDS if kind == "SIGSTOP" else HANG_SECONDS)
    assert any("rank 1" in text and "step" in text for text in said), attempt.log
    assert not tiny.check()

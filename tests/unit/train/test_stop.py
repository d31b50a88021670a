import os
import signal
import threading
from pathlib import Path

import pytest

from manyface.train.stop import Interrupted, StopFlag

FIRST = "stopping after this step and saving; another Ctrl-C stops at once, without saving"


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_first_signal_is_noted_and_the_handlers_go_back(number, code):
    before = signal.getsignal(number)
    said = []
    with StopFlag(notify=said.append) as stop:
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert said == [FIRST]
        if number == signal.SIGHUP:
            os.kill(os.getpid(), number)  # passed on once more: changes nothing
        else:
            assert signal.getsignal(number) == before  # a second one acts as usual
    assert signal.getsignal(number) == before
    error = Interrupted(stop.received, checkpoint=Path("runs/a/checkpoints/step-00000012"))
    assert error.exit_code == code
    assert "runs/a/checkpoints/step-00000012" in str(error)
    assert "manyface train runs/a/config.toml --resume" in str(error)


def test_a_hang_up_that_is_ignored_stays_so():
    """As under nohup: the terminal may go, the run shall not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.received is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_saved_is_said():
    assert "nothing to save" in str(Interrupted(signal.SIGINT, checkpoint=None))


def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work():
        with StopFlag() as stop:
            seen.append(signal.getsignal(signal.SIGINT))
            stop.request()
            seen.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, signal.SIGTERM]

"""What every test may use."""

import os
import signal
import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings

# Tables shared by several test files live beside them.
ROOMS = (
    *("parity", "distributed", "reliability", "property"),
    *("unit/plan", "unit/cli", "unit/data", "unit/model"),
)
for folder in ROOMS:
    sys.path.insert(0, str(Path(__file__).parent / folder))

# A shell's job in the background ignores Ctrl-C, one under nohup that its terminal closes, and so
# would the programs that tests interrupt.
for number, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

# How long an example takes, or to draw one, is the machine's.
settings.register_profile(
    "any-machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")

if not torch.cuda.is_available():  # read when triton is imported, by whoever does it first
    os.environ["TRITON_INTERPRET"] = "1"

"""The most memory that a process has had since it began to run its program.

Not ru_maxrss: a process begins with that of the one that started it, and a worker of a long test
session has a gigabyte. Then a bound fails for nothing, and a difference of two readings is 0.
"""

from pathlib import Path


def peak_bytes() -> int:
    """The largest resident memory of this process, bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024

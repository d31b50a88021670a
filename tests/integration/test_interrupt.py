"""Ctrl-C at any moment of the start ends in one line: no traceback, exit code 130."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = "from manyface.cli import main; raise SystemExit(main())"  # what an installed script does
PROGRAMS = {"module": ["-m", "manyface"], "script": ["-c", SCRIPT]}


def start(*options: str, folder: Path) -> "subprocess.Popen[str]":
    (folder / "x.toml").write_text("[data.synthetic]\nnum_identities = 2000\n")
    words = [sys.executable, "-u", *options, "train", "x.toml"]
    return subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def interrupted(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """What the process prints; it does not outlive the test."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("module", ["typer", "pydantic", "numpy", "torch._C", "torch.nn", "rich"])
def test_interrupted_while_importing(program: str, module: str, tmp_path: Path) -> None:
    """-X importtime names each module as its import ends, so the moment does not hang on speed."""
    process = start("-X", "importtime", *PROGRAMS[program], folder=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.endswith(f" {module}\n"):
            break
    out, err = interrupted(process)
    assert process.returncode == 130, err[-2000:]
    assert "Traceback" not in out + err
    assert [line for line in err.splitlines() if "error: " in line] == ["error: interrupted"]


def cpu_seconds(pid: int) -> float:
    """Of a process so far: on a busy machine Python itself may not have begun after a while."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_interrupted_after(seconds: float, tmp_path: Path) -> None:
    process = start(*PROGRAMS["module"], folder=tmp_path)
    until = time.monotonic() + seconds
    while time.monotonic() < until or (process.poll() is None and cpu_seconds(process.pid) < 0.3):
        time.sleep(0.01)
    out, err = interrupted(process)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err


def test_the_first_screen_does_without_torch() -> None:
    program = "import sys, manyface.cli.app; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)

"""The program as a process: exit codes, signals, pipes, and the whole way from photos to a page."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "manyface"]
SMALL = """
[data]
path = "synthetic"
image_size = 32
[data.synthetic]
num_identities = 40
images_per_identity = 4
[backbone]
name = "tiny"
embedding_size = 16
[schedule]
steps = {steps}
[train]
batch_size = 16
log_every = 1
[evaluation]
every_epochs = 0
num_pairs = 80
num_identities = 40
folds = 2
fars = [0.1]
"""


def run(*words: str, folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **options},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SMALL.format(steps=4))
    (tmp_path / "long.toml").write_text(SMALL.format(steps=100_000))
    return tmp_path


def test_train_evaluate_report(folder: Path) -> None:
    trained = run("train", "small.toml", folder=folder)
    assert trained.returncode == 0, trained.stderr
    assert "manyface report runs/small" in trained.stdout
    result = json.loads((folder / "runs/small/result.json").read_text())
    assert (result["steps"], result["num_identities"]) == (4, 40)

    evaluated = run("evaluate", "runs/small", folder=folder)
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"{result['verification_accuracy']:.4f}" in evaluated.stdout

    reported = run("report", "runs/small", folder=folder)
    assert reported.returncode == 0, reported.stderr
    assert (folder / "runs/small/report.html").stat().st_size > 1000


def test_quiet_prints_the_result_only(folder: Path) -> None:
    done = run("train", "small.toml", "--quiet", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("method")


def start_long_run(folder: Path) -> "subprocess.Popen[str]":
    """A run that is in the middle of its steps."""
    process = subprocess.Popen(
        [*PROGRAM, "train", "long.toml"],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    events = folder / "runs/long/events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"kind": "step"' in events.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


DEMO = ["demo", "--set", "data.synthetic.num_identities=40", "--set", "schedule.steps=100000"]


@pytest.mark.parametrize(
    ("words", "place"), [(["train", "long.toml"], "runs/long"), (DEMO, "runs/demo/full-fc")]
)
def test_closed_terminal_saves(folder: Path, words: list[str], place: str) -> None:
    """The terminal hangs up, and what is written to it from then on fails."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=folder,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    os.close(inside)
    events = folder / place / "events.jsonl"
    while not (events.exists() and '"kind": "step"' in events.read_text()):
        os.read(terminal, 1000)
    os.close(terminal)
    with process:
        try:
            assert process.wait(timeout=60) == 128 + signal.SIGHUP
        finally:
            process.kill()
    assert list((folder / place / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_says_how_to_resume(folder: Path, number: signal.Signals) -> None:
    process = start_long_run(folder)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = err.splitlines()[-1]
    assert last.startswith("error: stopped by ")
    assert "long: stopping after this step and saving; another Ctrl-C stops at once" in err
    assert "Traceback" not in err + out
    checkpoints = list((folder / "runs/long/checkpoints").glob("step-*"))
    assert checkpoints
    assert "manyface train runs/long/config.toml --resume" in last


def test_resume_after_a_stop_goes_on(folder: Path) -> None:
    process = start_long_run(folder)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    (kept,) = (folder / "runs/long/checkpoints").glob("step-*")
    step = int(kept.name.removeprefix("step-"))
    assert step > 0
    refused = run("train", "runs/long/config.toml", folder=folder)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr


@pytest.mark.parametrize("words", [("--help",), ("config",), ("doctor",)])
def test_closed_pipe_is_quiet(folder: Path, words: tuple[str, ...]) -> None:
    line = " ".join([f"'{sys.executable}'", "-m", "manyface", *words])
    shell = f"set -o pipefail; {line} | true"
    done = subprocess.run(["bash", "-c", shell], cwd=folder, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">&-", "standard output is closed; redirect it to a file, or to /dev/null"),
        (">/dev/full", "cannot write standard output: No space left on device (errno 28); free"),
    ],
)
@pytest.mark.parametrize("words", ["config", "doctor", "--version"])
@pytest.mark.parametrize("options", ["", "-u"])
def test_output_that_cannot_be_written(
    folder: Path, options: str, words: str, redirection: str, said: str
) -> None:
    line = f"env -u PYTHONUNBUFFERED '{sys.executable}' {options} -m manyface {words} {redirection}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_closed_error_output_is_no_error(folder: Path) -> None:
    line = f"'{sys.executable}' -m manyface train small.toml 2>&-"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("method")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["train", "absent.toml"], 2),
        (["train", "small.toml", "--set", "backbone.name=r51"], 2),
        (["evaluate", "absent"], 1),
        (["nonsense"], 2),
    ],
)
def test_exit_codes(folder: Path, words: list[str], code: int) -> None:
    done = run(*words, folder=folder)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (code != 0)


def test_names_that_the_terminal_cannot_show(folder: Path) -> None:
    done = run("train", "fehlt-ü人.toml", folder=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("error: fehlt-")


@pytest.mark.slow
def test_demo_in_small(folder: Path) -> None:
    overrides = ["data.synthetic.num_identities=100", "data.synthetic.images_per_identity=4"]
    overrides += ["schedule.steps=12", "schedule.warmup_steps=2"]
    overrides += ["evaluation.num_pairs=200", "evaluation.num_identities=100"]
    done = run("demo", *(w for o in overrides for w in ("--set", o)), folder=folder, COLUMNS="60")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    methods = json.loads((folder / "runs/demo/results.json").read_text())["methods"]
    assert [row["name"] for row in methods] == [
        "full-fc",
        "partial-fc",
        "f2c",
        "whitened pixels",
        "untrained backbone",
    ]
    full, partial, f2c = methods[:3]
    assert (full["sample_rate"], partial["sample_rate"]) == (1.0, 0.1)
    assert f2c["method"] == "f2c"
    same = ("backbone", "steps", "batch_size", "num_identities", "seed")
    assert all(full[key] == partial[key] == f2c[key] for key in same)
    assert (folder / "runs/demo/report.html").is_file()

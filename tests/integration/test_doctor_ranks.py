"""`manyface doctor --distributed` as users start it: under torchrun, and without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
DOCTOR = ["-m", "manyface", "doctor", "--distributed", "--timeout", "20"]


def start(
    *words: str, folder: Path, launcher: list[str] | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    return subprocess.run(
        [*(launcher or [sys.executable]), *DOCTOR, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "OMP_NUM_THREADS": "1", **more},
    )


def test_without_a_launcher_it_says_how(tmp_path: Path) -> None:
    done = start(folder=tmp_path)
    assert done.returncode == 1
    assert "torchrun --nproc-per-node 8 -m manyface doctor --distributed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_two_ranks_of_torchrun(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("train.batch_size = 8\n")
    done = start("--recipe", "recipe.toml", folder=tmp_path, launcher=TORCHRUN)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    names = [line.split()[1] for line in lines[:-1]]
    assert names.count("rendezvous:") == 1  # by one rank only
    for name in ("rank", "torch:", "recipe:", "clock:", "folder:", "all-gather:", "all-reduce:"):
        assert name in names
    assert lines[-1] == "The ranks can train together."
    assert not any(line.startswith("FAILED") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.slow
def test_ranks_of_torchrun_that_read_other_recipes(tmp_path: Path) -> None:
    program = (
        "import os, sys; from manyface.cli.program import main\n"
        "other = f'train.batch_size={8 + int(os.environ[\"RANK\"])}'\n"
        "sys.exit(main([*sys.argv[1:], '--set', other]))\n"
    )
    (tmp_path / "recipe.toml").write_text("")
    (tmp_path / "other.py").write_text(program)
    command = [*TORCHRUN, "other.py", *DOCTOR[2:], "--recipe", "recipe.toml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "FAILED   recipe: rank 1: " in done.stdout
    assert done.stdout.splitlines()[-1] == "FAILED: recipe"
    assert "a defect of manyface" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [0, 1])
def test_a_rank_that_does_not_come(hangs: int, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import os, sys, time; from manyface.cli.program import main\n"
        f"time.sleep(240 if os.environ['RANK'] == '{hangs}' else 0)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [*TORCHRUN, "late.py", "doctor", "--distributed", "--timeout", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    text = f"rank {hangs} of 2 did not come within 3 s"
    assert text in (done.stdout if hangs else done.stderr)

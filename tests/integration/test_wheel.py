"""The wheel, in a clean environment: what users install is whole, and passes a test of itself."""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_PACKAGES = 8  # that come at run time beside torch, with what they need themselves apart


def run(*command: str | Path, folder: Path) -> str:
    """Output of a command that must end well; nothing of the checkout is in its way."""
    hidden = {"PYTHONPATH", "VIRTUAL_ENV", "PIP_CONSTRAINT"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_trains_on_two_ranks_in_a_clean_environment(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    wheels = tmp_path / "wheels"
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, ROOT, folder=tmp_path)
    (wheel,) = wheels.glob("manyface-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "--quiet", "-c", constraints, wheel, folder=tmp_path)

    place = run(python, "-c", "import manyface; print(manyface.__file__)", folder=tmp_path)
    assert str(tmp_path / "env") in place
    doctor = run(python, "-m", "manyface", "doctor", folder=tmp_path)
    assert "missing" not in doctor

    tiny = ["data.image_size=32", "data.synthetic.num_identities=24", "backbone.name=tiny"]
    tiny += ["schedule.steps=4", "train.batch_size=8", "evaluation.num_pairs=40"]
    tiny += ["evaluation.num_identities=30", "evaluation.folds=2", "run.name=two"]
    (tmp_path / "recipe.toml").write_text("")
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    settings = [word for each in tiny for word in ("--set", each)]
    run(*torchrun, "-m", "manyface", "doctor", "--distributed", folder=tmp_path)
    run(*torchrun, "-m", "manyface", "train", "recipe.toml", *settings, folder=tmp_path)
    run(python, "-m", "manyface", "checkpoint", "verify", "runs/two", folder=tmp_path)


def test_few_packages_are_needed_beside_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {word.split(">")[0].split("=")[0].strip() for word in project["dependencies"]}
    assert len(needed - {"torch"}) <= MOST_PACKAGES, sorted(needed)

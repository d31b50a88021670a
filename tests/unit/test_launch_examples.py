"""The launchers' examples in docs/howto are what bash, torchrun and a YAML reader can read."""

import re
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
PAGES = ("slurm.md", "kubernetes.md")


def blocks(page: str, language: str) -> list[str]:
    text = (HOWTO / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SCRIPTS = blocks("slurm.md", "sh")


def torchrun(words: list[str]) -> Namespace:
    """What torchrun makes of its arguments; it leaves the process if it cannot read them."""
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(words)


def commands(script: str) -> list[list[str]]:
    """The arguments of torchrun, wherever a script calls it."""
    lines = script.replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    return [
        [word for word in words[words.index("torchrun") + 1 :] if word != "&"]
        for words in found
        if "torchrun" in words
    ]


def check(words: list[str]) -> Namespace:
    options = torchrun(words)
    assert options.module
    assert options.training_script == "manyface"
    assert options.training_script_args[0] == "train"
    assert options.training_script_args[1].endswith("recipe.toml")
    return options


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (words,) = commands(script)
    options = check(words)
    if options.nnodes != "1:1":  # several machines
        assert options.rdzv_backend == "c10d"
        assert options.rdzv_endpoint
        assert "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in script


def test_slurm_leaves_time_to_save() -> None:
    (script,) = [script for script in SCRIPTS if "#SBATCH" in script]
    options = check(commands(script)[0])
    assert "SIGUSR1" in options.signals_to_handle.split(",")
    (seconds,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", script, re.MULTILINE)
    assert int(seconds) >= options.shutdown_timeout + 60
    assert "\n#SBATCH --requeue\n" in script
    assert "--resume-or-start" in options.training_script_args


SLURM = """
scontrol() { if [ "$1" = show ]; then echo alpha; echo beta; else echo "$@" >> log; fi; }
srun() { trap 'kill $!; echo saved >> log; exit 1' USR1; echo "$@" >> log; sleep 60 & wait; }
export SLURM_JOB_NODELIST=alpha,beta SLURM_JOB_ID=123456 SLURM_NNODES=2
(while [ ! -s log ]; do sleep 0.05; done; kill -USR1 $$) &
"""


def test_slurm_script_saves_and_goes_back_into_the_queue(tmp_path: Path) -> None:
    (script,) = [script for script in SCRIPTS if "#SBATCH" in script]
    done = subprocess.run(
        ["bash", "-c", SLURM + script], cwd=tmp_path, stdout=subprocess.DEVNULL, timeout=50
    )
    assert done.returncode == 0
    started, saved, requeued = (tmp_path / "log").read_text().splitlines()
    assert "--rdzv-endpoint alpha:23456" in started
    assert (saved, requeued) == ("saved", "requeue 123456")


def test_kubernetes() -> None:
    yaml = pytest.importorskip("yaml")
    (text,) = blocks("kubernetes.md", "yaml")
    job_set: dict[str, Any] = yaml.safe_load(text)
    (job,) = job_set["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["torchrun"]
    options = check(container["args"])
    assert "--resume-or-start" in options.training_script_args
    assert pod["terminationGracePeriodSeconds"] >= options.shutdown_timeout + 60
    assert int(options.nnodes) == job["template"]["spec"]["completions"]
    name = job_set["metadata"]["name"]
    host, _, port = options.rdzv_endpoint.partition(":")
    assert host == f"{name}-{job['name']}-0-0.{name}"
    assert int(port) == container["ports"][0]["containerPort"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment == {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_an_example(page: str) -> None:
    assert blocks(page, "sh") or blocks(page, "yaml")

"""What goes wrong ends in one clear line and an exit code; help teaches and fits the terminal."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import typer

import manyface
from manyface.base.errors import ConfigError, DataError, PeerError
from manyface.cli.app import app
from manyface.cli.doctor import OPTIONAL, REQUIRED, _software
from manyface.cli.program import explain, main
from manyface.config import parse_config

Outcome = tuple[int, str, str]
VERBS = (
    *("train", "plan", "demo", "evaluate", "export"),
    *("embed", "compare", "enroll", "search", "cluster"),
    *("report", "reproduce", "config", "import-config", "doctor"),
    *("checkpoint", "bench", "data"),
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*words: object) -> Outcome:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


def test_version(run: Callable[..., Outcome]) -> None:
    assert run("--version") == (0, f"manyface {manyface.__version__}\n", "")


@pytest.mark.parametrize("words", [("--help",), ("-h",)])
def test_help_teaches_the_first_commands(run: Callable[..., Outcome], words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    for verb in VERBS:
        assert f"\n  {verb} " in out
    assert "manyface demo" in out
    assert "--set data.path=" in out
    assert "\b" not in out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("width", ["80", "40"])
def test_verb_help(
    run: Callable[..., Outcome], verb: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: manyface {verb}")


def test_doctor_names_versions_devices_and_room(run: Callable[..., Outcome]) -> None:
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    for word in ("torch", "simplejpeg", "cores", "threads", "memory", "disk", "cpu kernels"):
        assert word in out


def test_doctor_names_the_extra_of_a_missing_part(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyface.cli.doctor._installed", lambda package: None)
    monkeypatch.setenv("COLUMNS", "200")
    assert "pip install '.[tensorboard]' in manyface's folder" in run("doctor")[1]


def test_doctor_knows_all_packages_of_pyproject() -> None:
    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(REQUIRED) == set(map(name_of, project["dependencies"]))
    del extras["dev"]
    expected = {name_of(each): extra for extra in extras for each in extras[extra]}
    assert expected == OPTIONAL


def name_of(requirement: str) -> str:
    return re.split("[<>=!;]", requirement)[0]


def test_doctor_knows_builds_of_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"faiss-gpu-cu12": "1.12.0", "onnxruntime": "1.23.0"}

    def version(package: str) -> str:
        if package in there:
            return there[package]
        raise PackageNotFoundError(package)

    monkeypatch.setattr("manyface.cli.doctor.version", version)
    rows = dict(_software())
    assert rows["faiss-cpu"] == "1.12.0 (faiss-gpu-cu12)"
    assert rows["onnxruntime"] == "1.23.0"
    assert rows["lmdb"] == "not there (optional): pip install '.[lmdb]' in manyface's folder"


def test_config_prints_a_recipe(run: Callable[..., Outcome]) -> None:
    code, out, _ = run("config", "--set", "head.sample_rate=0.25")
    assert code == 0
    assert parse_config(out) == parse_config("", ["head.sample_rate=0.25"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "trian"),
        (["train"], 2, "recipe"),
        (["train", "--sett", "x"], 2, "--sett"),
        (["config", "--set"], 2, "--set"),
        (["config", "--set", "train.batchsize=3"], 2, "did you mean train.batch_size?"),
        (["config", "--set", "train.batch_size=0"], 2, "at least 2"),
        (["train", "absent.toml"], 2, "absent.toml: cannot read the recipe"),
        (["train", "."], 2, "is a folder"),
        (["evaluate", "absent"], 1, "absent"),
        (["evaluate", "."], 1, "no run"),
        (["report", "absent"], 1, "absent"),
        (["report", "."], 1, "not a run"),
        (["report"], 2, "runs"),
    ],
)
def test_user_error_is_one_line(
    run: Callable[..., Outcome],
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said.lower() in err.lower()


def test_folder_of_a_run_given_as_recipe_names_the_recipe(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("")
    assert f"did you mean {tmp_path / 'config.toml'}?" in run("train", tmp_path)[2]


def test_each_mistake_of_a_recipe_is_a_line(run: Callable[..., Outcome], tmp_path: Path) -> None:
    recipe = tmp_path / "two.toml"
    recipe.write_text("[run]\nseed = -1\n[head]\nscael = 3\n")
    code, _, err = run("config", recipe)
    assert code == 2
    assert [line.startswith("error: ") for line in err.splitlines()] == [True, True]
    assert "did you mean head.scale?" in err


def raising(error: BaseException) -> Callable[[], None]:
    def verb() -> None:
        raise error

    return verb


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def replace(error: BaseException) -> None:
        failing_app = typer.Typer(pretty_exceptions_enable=False)
        failing_app.callback()(lambda: None)
        failing_app.command("fail")(raising(error))
        monkeypatch.setattr("manyface.cli.program.app", failing_app)

    return replace


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a.b: wrong"), 2, "error: a.b: wrong"),
        (DataError("no faces in x"), 1, "error: no faces in x"),
        (OSError(28, "No space left on device", "/r/x"), 1, "error: No space left on device: /r/x"),
        (PermissionError(13, "Permission denied", "/r"), 1, "error: Permission denied: /r"),
        (MemoryError(), 1, "error: out of memory: lower train.batch_size"),
        (RuntimeError("[x] can't allocate memory: 9"), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (ValueError("surprise\nsecond line"), 70, "error: a defect of manyface: ValueError: surp"),
    ],
)
def test_errors_and_exit_codes(
    run: Callable[..., Outcome],
    failing: Callable[[BaseException], None],
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MANYFACE_DEBUG", raising=False)
    failing(error)
    found, out, err = run("fail")
    assert (found, out) == (code, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("how", ["before", "after", "environment"])
def test_debug_shows_the_traceback(
    run: Callable[..., Outcome],
    failing: Callable[[BaseException], None],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(ValueError("surprise"))
    words = {"before": ["--debug", "fail"], "after": ["fail", "--debug"], "environment": ["fail"]}
    if how == "environment":
        monkeypatch.setenv("MANYFACE_DEBUG", "1")
    code, _, err = run(*words[how])
    assert code == 70
    assert "Traceback" in err
    assert "ValueError: surprise" in err


def test_device_out_of_memory_is_known_by_name() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    assert explain(OutOfMemoryError("CUDA out of memory"))[1] == 1


def test_report_of_a_folder_of_runs_warns_of_damage(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/events.jsonl").write_text('{"kind": "start", "step": 0}\n?\n')
    code, out, err = run("report", tmp_path / "runs")
    assert (code, out) == (0, f"Wrote {tmp_path / 'runs/report.html'}\n")
    assert err.startswith(f"warning: {tmp_path / 'runs/a/events.jsonl'}, line 2: ")


def test_help_names_every_verb_once() -> None:
    verbs = [*app.registered_commands, *app.registered_groups]
    assert [verb.name for verb in verbs] == list(VERBS)


# A thread that waits for other ranks hears of them while the interpreter ends.
LATE = """
import sys, time, threading
from datetime import timedelta
import torch, torch.distributed as dist
from manyface.base.errors import PeerError
from manyface.cli import main, program

class Late:
    def __del__(self, sleep=time.sleep):
        sleep(3)

late = Late()

def app(*arguments, **options):
    store = dist.HashStore()
    group = dist.PrefixStore("late", store)
    threading.Thread(target=lambda: wait(group), daemon=True).start()
    time.sleep(0.2)
    raise PeerError("sums", rank=0, size=2, error=RuntimeError("lost"))

def wait(store):
    try:
        store.wait(["nothing"], timedelta(seconds=1))
    except RuntimeError:
        pass

program.app = app
sys.exit(main())
"""


def test_threads_that_wait_for_others_do_not_abort_a_process_that_ends() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120)
    assert done.returncode == PeerError.exit_code, done.stderr
    assert done.stderr.startswith("error: rank 0 of 2 could not finish 'sums'")
    assert len(done.stderr.splitlines()) == 1

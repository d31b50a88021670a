"""`manyface doctor --distributed`: what follows from what ranks tell, and wrong command lines."""

from pathlib import Path
from typing import Any

import pytest

from manyface.cli import distributed_check
from manyface.cli.program import main
from manyface.parallel.selftest import FAILED, OK, WARNING


def fact(**changes: Any) -> dict[str, Any]:
    return {
        "host": "a",
        "pid": 7,
        "device": "cpu",
        "has device": True,
        "kind of device": "cpu",
        "python": "3.11.7",
        "torch": "2.13.0",
        "numpy": "2.4.6",
        "manyface": "0.1.0",
        "memory": 2**35,
        "disk": 2**40,
        "shared memory": 2**34,
        "open files": 65_536,
        "locked": -1,
        "recipe": "abc",
        "problem": "",
        **changes,
    }


def test_few_ranks_have_lines_of_their_own() -> None:
    one, two, devices = distributed_check._who_is_where([fact(), fact(host="b", pid=8)])
    assert (one.name, one.text) == ("rank 0", "a, process 7, cpu")
    assert (two.name, two.text) == ("rank 1", "b, process 8, cpu")
    assert devices.text == "2 ranks on 2 hosts"


def test_many_ranks_share_the_line_of_their_host() -> None:
    told = [fact(host="ab"[rank // 16]) for rank in range(32)]
    one, two, _ = distributed_check._who_is_where(told)
    assert (one.name, one.text) == ("a", "ranks 0-15 on cpu")
    assert (two.name, two.text) == ("b", "ranks 16-31 on cpu")


def test_a_rank_without_a_gpu_of_its_own() -> None:
    told = [fact(device="cuda:0"), fact(device="cuda:1", **{"has device": False})]
    *_, devices = distributed_check._who_is_where(told)
    assert devices.state == FAILED
    assert devices.text.startswith("no GPU for rank 1;")


@pytest.mark.parametrize("name", ["python", "torch", "numpy", "manyface", "recipe"])
def test_what_must_be_the_same(name: str) -> None:
    told = [fact(), fact(**{name: "other"}), fact()]
    found = distributed_check._about_versions(told, has_recipe=True)
    (failed,) = (check for check in found if check.state == FAILED)
    assert failed.name == name
    assert failed.text.startswith("rank 1: other; the others:")


def test_a_recipe_that_cannot_be_read_fails_even_if_nobody_can() -> None:
    told = [fact(recipe="", problem="no such file")] * 2
    *_, recipe = distributed_check._about_versions(told, has_recipe=True)
    assert recipe.state == FAILED
    assert "ranks 0-1 cannot read it: no such file" in recipe.text
    without = distributed_check._about_versions(told, has_recipe=False)
    assert "recipe" not in [check.name for check in without]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": 2**30}, "little memory"),
        ({"disk": 2**30}, "little disk"),
        ({"open files": 1024}, "ulimit -n 4096"),
        ({"device": "cuda:1", "locked": 65_536}, "ulimit -l unlimited"),
        ({"device": "cuda:1", "shared memory": 2**26}, "--shm-size"),
    ],
)
def test_a_machine_that_lacks_something(changes: dict[str, Any], said: str) -> None:
    one, two = distributed_check._about_machines([fact(), fact(host="b", **changes)])
    assert (one.name, one.state) == ("a", OK)
    assert (two.name, two.state) == ("b", WARNING)
    assert said in two.text


def test_a_machine_whose_disk_is_not_known_and_files_are_unlimited() -> None:
    (check,) = distributed_check._about_machines([fact(disk=None, **{"open files": -1})])
    assert check.state == OK
    assert "no known bytes of disk, unlimited open files" in check.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--distributed"], "torchrun --nproc-per-node"),
        (["--recipe", "x.toml"], "are for --distributed"),
        (["--set", "train.batch_size=8"], "are for --distributed"),
    ],
)
def test_wrong_command_lines_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert main(["doctor", *words]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_time_limits_that_are_none(
    seconds: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert main(["doctor", "--distributed", "--timeout", seconds]) == 1
    assert "expected --timeout above 0" in capsys.readouterr().err


def test_a_rendezvous_without_an_address(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor", "--distributed"]) == 1
    assert capsys.readouterr().out.startswith("FAILED   rendezvous: the ranks cannot meet")
    monkeypatch.setenv("RANK", "1")
    assert main(["doctor", "--distributed"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "the ranks cannot meet" in err


def test_the_recipe_names_the_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'run.directory = "{tmp_path}/not/yet/there"\n')
    place, read = distributed_check._read(recipe, [], None)
    assert place == tmp_path
    assert len(read["recipe"]) == 16
    other = distributed_check._read(recipe, ["train.batch_size=8"], tmp_path / "x")
    assert other[0] == tmp_path / "x"
    assert other[1]["recipe"] != read["recipe"]
    missing = distributed_check._read(tmp_path / "none.toml", [], None)[1]
    assert "none.toml" in missing["problem"]

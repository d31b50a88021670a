"""`manyface checkpoint`: on checkpoints of one and of three ranks; errors in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from manyface.checkpoint import load, save
from manyface.cli.program import main
from manyface.train.state import take_rows, unpack_groups

GOLDEN = Path(__file__).parents[2] / "golden"
Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*words: object) -> Outcome:
        code = main(["checkpoint", *map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The folder of a run whose checkpoint three ranks wrote."""
    shutil.copytree(GOLDEN / "checkpoint-2", tmp_path / "run" / "checkpoints")
    return tmp_path / "run"


@pytest.mark.parametrize("width", [40, 80])
def test_inspect(run, sharded, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = run("inspect", sharded)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "step 7, of 3 ranks, 2.3 KiB" in lines
    assert "best score 0.3" in lines
    assert "num images 70" in lines
    assert "head: 3 tensors, 224 B" in lines
    files = " in 3 files" if width == 80 else ""
    assert f"centers.velocity BF16 7x4 56 B{files}" in lines
    assert "count I64 scalar 8 B" in lines
    tables = out[out.index("backbone:") :]  # the path above them may be long
    assert max(map(len, tables.splitlines())) <= width


def test_a_run_a_folder_of_checkpoints_and_a_checkpoint_are_all_right(run, sharded):
    path = sharded / "checkpoints" / "step-00000007"
    for place in (sharded, sharded / "checkpoints", path):
        assert run("verify", place) == (0, f"OK: {path}\n", "")


def test_verify_names_the_damaged_file(run, sharded):
    file = sharded / "checkpoints" / "step-00000007" / "head-1-of-3.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 4
    file.write_bytes(content)
    code, out, err = run("verify", sharded)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {file} is damaged: expected xxh3")
    assert len(err.splitlines()) == 1


def test_merge_gives_one_file_a_group_and_the_same_state(run, sharded, tmp_path):
    code, out, _ = run("merge", sharded, "-o", tmp_path / "merged")
    path = tmp_path / "merged" / "step-00000007"
    assert (code, out) == (0, f"Wrote {path}\n")
    assert sorted(each.name for each in path.iterdir()) == [
        "MANIFEST.json",
        "backbone.safetensors",
        "head.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    merged, before = load(path), load(sharded / "checkpoints" / "step-00000007")
    assert merged.state == before.state
    assert not any(merged.tables.values())
    wanted = take_rows(unpack_groups(before), like=None)["head"]
    assert merged.tensors["head"].keys() == wanted.keys()
    for name, values in wanted.items():
        assert torch.equal(merged.tensors["head"][name], values)
    code, _, err = run("merge", sharded, "-o", tmp_path / "merged")
    assert code == 1
    assert "exists already: name another folder" in err


@pytest.mark.parametrize("averaged", [False, True])
def test_export_writes_the_net_that_is_evaluated(run, tmp_path, averaged):
    tensors = {"backbone": {"w": torch.ones(2)}, "head": {"c": torch.ones(9)}}
    if averaged:
        tensors["averaged"] = {"w": torch.full((2,), 3.0)}
    save(tmp_path / "run" / "checkpoints", step=1, tensors=tensors, state={})
    file = tmp_path / "new" / "net.safetensors"
    code, out, _ = run("export", tmp_path / "run", "-o", file)
    assert code == 0
    assert "weights of 'averaged'" in out if averaged else "weights of 'backbone'" in out
    assert "nothing else of how images are prepared for them is in the file" in out
    found = load_file(file)
    assert found.keys() == {"w"}
    assert torch.equal(found["w"], torch.full((2,), 3.0 if averaged else 1.0))
    assert sorted(each.name for each in file.parent.iterdir()) == [file.name]


@pytest.mark.parametrize("verb", ["inspect", "verify", "merge", "export"])
def test_errors_are_one_line(run, tmp_path, verb):
    words = ["-o", tmp_path / "new"] if verb in ("merge", "export") else []
    (tmp_path / "file").touch()
    for place, said in [
        (tmp_path / "no", "is no directory"),
        (tmp_path, "has no checkpoint"),
        (tmp_path / "file", "is no directory"),
    ]:
        code, out, err = run(verb, place, *words)
        assert (code, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert said in err


def test_what_is_no_net_and_what_cannot_be_written(run, sharded, tmp_path):
    save(tmp_path / "other", step=1, tensors={"head": {}}, state={})
    assert "holds no net" in run("export", tmp_path / "other", "-o", tmp_path / "x")[2]
    (tmp_path / "file").touch()
    code, _, err = run("export", sharded, "-o", tmp_path / "file" / "x")
    assert code == 1
    assert err.startswith(f"error: cannot write {tmp_path}/file/x: ")

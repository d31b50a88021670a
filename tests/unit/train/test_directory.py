import shutil
from pathlib import Path

import pytest

from manyface.base.errors import CheckpointError, ConfigError, ManyfaceError, WriteError
from manyface.cli import main
from manyface.config import Config, load_config, parse_config
from manyface.train.directory import (
    begin,
    check_same_recipe,
    check_start,
    load_recipe,
    naming_kept,
    with_precision,
)


def config(*overrides: str):
    return parse_config("", list(overrides))


def prepare(directory: Path, config: Config, *, resume: bool, force: bool) -> None:
    check_start(directory, config, resume=resume, force=force)
    begin(directory, config, resume=resume)


def test_files_of_nobodys_run_are_left_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/mine").write_text("x")
    for force in (False, True):
        with pytest.raises(ConfigError, match=r"is no run .* holds checkpoints"):
            prepare(tmp_path, config(), resume=False, force=force)
    assert (tmp_path / "checkpoints/mine").read_text() == "x"


def test_the_resolved_config_is_written_and_reads_back(tmp_path):
    chosen = config("head.sample_rate=0.2")
    prepare(tmp_path, chosen, resume=False, force=False)
    assert load_config(tmp_path / "config.toml") == chosen


def test_a_run_is_not_overwritten_unawares(tmp_path):
    prepare(tmp_path, config(), resume=False, force=False)
    with pytest.raises(ConfigError, match=r"--resume.*--force.*run\.name"):
        prepare(tmp_path, config(), resume=False, force=False)


def test_force_deletes_what_a_run_wrote_and_nothing_else(tmp_path):
    prepare(tmp_path, config(), resume=False, force=False)
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "events.jsonl").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    prepare(tmp_path, config("run.seed=1"), resume=False, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "notes.txt"]


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="no run to resume"):
        prepare(tmp_path, config(), resume=True, force=False)


def test_a_resume_may_change_how_it_runs_but_not_what_it_computes(tmp_path):
    prepare(tmp_path, config(), resume=False, force=False)
    free = config(
        "run.threads=1",
        "train.log_every=3",
        "evaluation.every_steps=7",
        "train.keep=5",
        "head.placement=host",
    )
    prepare(tmp_path, free, resume=True, force=False)
    with pytest.raises(
        ConfigError, match=r"head\.scale was 64\.0, is 32\.0; run\.seed was 0, is 4"
    ):
        prepare(tmp_path, config("head.scale=32", "run.seed=4"), resume=True, force=False)
    assert load_config(tmp_path / "config.toml") == free


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/config\.toml.*errno"):
        prepare(tmp_path / "file", config(), resume=False, force=False)


def test_a_failed_write_says_which_checkpoint_is_kept(tmp_path):
    failed = WriteError(tmp_path / "events.jsonl", OSError(28, "No space left on device"))
    said = r"events.jsonl.*errno 28.*no checkpoint had been"
    with pytest.raises(ManyfaceError, match=said), naming_kept(tmp_path):
        raise failed
    (tmp_path / "checkpoints" / "step-00000012").mkdir(parents=True)
    said = r"step-00000012 is kept.*/config.toml --resume"
    with pytest.raises(ManyfaceError, match=said), naming_kept(tmp_path):
        raise failed


def test_the_config_of_a_run_means_the_folder_it_lies_in(tmp_path, monkeypatch):
    """Copied or moved, a run is where its files are, not where it was begun."""
    monkeypatch.chdir(tmp_path)
    begun = config("run.directory=runs", "run.name=first")
    begun.run_directory.mkdir(parents=True)
    prepare(begun.run_directory, begun, resume=False, force=False)
    (begun.run_directory / "events.jsonl").touch()
    shutil.copytree("runs/first", 'moved/an [odd] "1.5"')
    own = Path("runs/first/config.toml")
    assert load_recipe(own) == begun
    copied = load_recipe('moved/an [odd] "1.5"/config.toml')
    assert copied.run_directory == Path('moved/an [odd] "1.5"')
    assert load_recipe(own, ["run.name=other"]).run_directory == Path("runs/other")
    monkeypatch.chdir('moved/an [odd] "1.5"')
    assert load_recipe("config.toml").run_directory == tmp_path / 'moved/an [odd] "1.5"'


@pytest.mark.parametrize("beside", [[], ["checkpoints/mine"], ["run.log"]])
def test_a_recipe_that_is_called_config_is_a_recipe(tmp_path, beside):
    for name in beside:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "config.toml").write_text(config("run.name=a").to_toml())
    assert load_recipe(tmp_path / "config.toml").run_directory == Path("runs/a")
    (tmp_path / "checkpoints" / "step-00000010").mkdir(parents=True)
    assert load_recipe(tmp_path / "config.toml").run_directory == tmp_path
    (tmp_path / "config.toml").rename(tmp_path / "other.toml")
    assert load_recipe(tmp_path / "other.toml").run_directory == Path("runs/a")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_precision_is_that_of_the_first_start(tmp_path, monkeypatch, has_bf16):
    """A resume on another machine keeps the arithmetic, and so does an evaluation there."""
    monkeypatch.setattr("manyface.train.devices.cpu_has_bf16", lambda: has_bf16)
    chosen = config(f"run.directory={tmp_path}", "run.device=cpu")
    first = with_precision(chosen, resume=False)
    assert first.run.precision == ("bf16" if has_bf16 else "fp32")
    chosen.run_directory.mkdir()
    prepare(chosen.run_directory, first, resume=False, force=False)
    monkeypatch.setattr("manyface.train.devices.cpu_has_bf16", lambda: not has_bf16)
    assert with_precision(chosen, resume=True) == first
    check_start(chosen.run_directory, with_precision(chosen, resume=True), resume=True, force=False)
    assert with_precision(chosen, resume=False).run.precision != first.run.precision


def test_a_precision_that_was_asked_for_stays(tmp_path):
    chosen = config(f"run.directory={tmp_path}", "run.precision=fp32")
    assert with_precision(chosen, resume=False) == chosen


class TwoRanks:
    """Of which the other one has said `text`."""

    def __init__(self, text: str = "") -> None:
        self._text = text

    def say(self, text: str, name: str) -> list[str]:
        self.said = text
        return [text, self._text or text]


@pytest.mark.parametrize("more", [0, 1])
def test_ranks_with_different_numbers_of_sets(more):
    one, two = (
        '[[data.sets]]\npath = "a"\n' * (1 + more),
        '[[data.sets]]\npath = "a"\n' * (2 - more),
    )
    other = TwoRanks()
    check_same_recipe(parse_config(two), other)
    with pytest.raises(ConfigError, match=r"rank 1 has another recipe than rank 0: data\.sets\.1"):
        check_same_recipe(parse_config(one), TwoRanks(other.said))


def test_a_refused_recipe_leaves_no_folder(tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[run]\ndirectory = "{tmp_path / "runs"}"\n')
    for override in ("backbone.name=nothing", "data.path=nowhere", "head.weights=none"):
        assert main(["train", str(recipe), "--set", override, "--set", "run.device=cpu"]) != 0
        assert capsys.readouterr().err.startswith("error: ")
        assert list(tmp_path.iterdir()) == [recipe]

"""Interrupted and resumed runs equal uninterrupted ones bit for bit, whatever ended them."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recipe import TINY

from manyface.base.errors import CheckpointError, ConfigError, NonFiniteError
from manyface.checkpoint import load, newest
from manyface.checkpoint import stream as stream_module
from manyface.config import Config, parse_config
from manyface.observe import read_events
from manyface.observe.progress import SilentProgress
from manyface.train import Interrupted, StopFlag, build, evaluate_run, train
from manyface.train import directory as places
from manyface.train.saving import Saver
from manyface.train.state import read_position

FLAVOURS = {
    "full": [],
    "partial": ["head.sample_rate=0.4"],
    "lazy-exact": ["head.sample_rate=0.4", "head.missed_steps=lazy-exact", "head.dtype=bfloat16"],
    "head-adamw": ["head.sample_rate=0.4", "head.optimizer=adamw", "optimizer.accumulation=2"],
    "hard-sub-centers": [
        "head.sample_rate=0.6",
        "head.sampler=hard",
        "head.hard_neighbours=3",
        "head.hard_refresh_steps=3",
        "head.sub_centers=2",
        "head.scale_schedule=linear",
        "head.scale_steps=6",
    ],
    "balanced-scheduled": [
        "head.sample_rate=0.6",
        "head.sampler=balanced",
        "head.margin=adaface",
        "head.margin_schedule=linear",
        "head.margin_steps=6",
        "data.synthetic.long_tail=1",
    ],
    "f2c": ["head.method=f2c", "pool.ratio=0.25", "optimizer.accumulation=2"],
    "f2c-official": ["head.method=f2c", "pool.ratio=0.5", "pool.preset=official"],
    "f2c-prefilled": [
        "head.method=f2c",
        "pool.slots=13",
        "pool.prefill=true",
        "pool.features=2",
        "backbone.dropout=0.3",
    ],
    "virtual": ["head.method=virtual", "pool.ratio=0.5", "pool.identity_share=1.0"],
    "averaged-accumulated": ["train.ema=0.9", "optimizer.accumulation=2", "head.sample_rate=0.5"],
    "adamw-dropout": ["optimizer.name=adamw", "backbone.dropout=0.3", "head.method=full"],
}


def make(directory: Path, *overrides: str) -> Config:
    return parse_config("", [f"run.directory={directory}", *TINY, *overrides])


def silent(name: str, *, num_steps: int) -> SilentProgress:
    return SilentProgress()


def stopping_after(step: int, stop: StopFlag):
    """A display that asks the run to stop once it has shown `step`."""

    class Display(SilentProgress):
        def update(self, snapshot):
            if snapshot.step == step:
                stop.request()

    return lambda name, *, num_steps: Display()


def curve(run: Path) -> list[tuple[int, str, str]]:
    """(step, loss, gradient norm) as hexadecimal floats."""
    events = [event for event in read_events(run / "events.jsonl") if event["kind"] == "step"]
    return [(e["step"], e["loss"].hex(), e["grad_norm"].hex()) for e in events]


def assert_same_end(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    assert [step for step, _, _ in curve(one)] == list(range(1, 9))
    first, second = (load(newest(run / "checkpoints")) for run in (one, other))
    assert first.step == second.step == 8
    assert first.tensors.keys() == second.tensors.keys()
    for group, members in first.tensors.items():
        for name, tensor in members.items():
            assert torch.equal(tensor, second.tensors[group][name]), f"{group}: {name}"
    for run in (one, other):
        with np.load(run / "evaluation" / "synthetic.npz", allow_pickle=False) as found:
            similarity = found["similarity"]
        if run == one:
            expected = similarity
    assert np.array_equal(similarity, expected)
    scores = [json.loads((run / "result.json").read_text())["sets"] for run in (one, other)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, flavour):
    whole = make(tmp_path, *FLAVOURS[flavour], "run.name=whole")
    parts = make(tmp_path, *FLAVOURS[flavour], "run.name=parts")
    train(whole, progress=silent)
    for last_step in (2, 5):
        stop = StopFlag()
        with pytest.raises(Interrupted, match=rf"step-0000000{last_step}"):
            train(parts, resume=last_step > 2, progress=stopping_after(last_step, stop), stop=stop)
    result = train(parts, resume=True, progress=silent)
    assert result.result["steps"] == 8
    assert (result.result["sample_rate"] is None) == (whole.head.method in ("f2c", "virtual"))
    assert_same_end(whole.run_directory, parts.run_directory)


def test_centers_move_house_at_a_resume(tmp_path):
    """The files are working storage: a checkpoint is all that a resume reads, wherever it goes."""
    lazy = ["head.sample_rate=0.4", "head.missed_steps=lazy-exact", "head.dtype=bfloat16"]
    mapped = ["head.placement=file", f"head.placement_folder={tmp_path / 'rows'}"]
    whole = make(tmp_path, *lazy, "run.name=whole")
    train(whole, progress=silent)
    for last_step, placement in ((2, []), (4, mapped), (6, ["head.placement=host"]), (8, mapped)):
        parts = make(tmp_path, *lazy, *placement, "run.name=parts")
        stop, ends = StopFlag(), last_step == 8
        display = silent if ends else stopping_after(last_step, stop)
        with nullcontext() if ends else pytest.raises(Interrupted):
            train(parts, resume=last_step > 2, progress=display, stop=stop)
        for left in (tmp_path / "rows").glob("*.rows"):
            left.write_bytes(b"what a crash may leave")
    assert_same_end(whole.run_directory, parts.run_directory)


@pytest.mark.parametrize(
    ("said", "checkpoint"), [("filling the pool", None), (None, "step-00000000")]
)
def test_a_run_stopped_while_or_after_the_pool_is_filled(tmp_path, said, checkpoint):
    whole, parts = (
        make(tmp_path, *FLAVOURS["f2c-prefilled"], f"run.name={name}")
        for name in ("whole", "parts")
    )
    train(whole, progress=silent)
    stop = StopFlag()

    class Display(SilentProgress):
        def activity(self, text, *, more=False):
            if text == said:
                stop.request()

    with pytest.raises(Interrupted, match=checkpoint or "nothing to save"):
        train(parts, progress=lambda name, *, num_steps: Display(), stop=stop)
    found = newest(parts.run_directory / "checkpoints")
    assert (found.name if found else None) == checkpoint
    train(parts, resume=True, progress=silent)
    assert_same_end(whole.run_directory, parts.run_directory)
    kinds = [event["kind"] for event in read_events(parts.run_directory / "events.jsonl")]
    assert kinds.count("prepared") == 1  # by one process or the other, never by both


def test_a_filled_pool_has_everybody_from_the_first_step_on(tmp_path):
    options = [*FLAVOURS["f2c-prefilled"], "schedule.steps=1", "schedule.warmup_steps=0"]
    slots = {}
    for prefill in ("true", "false"):
        config = make(tmp_path, *options, f"pool.prefill={prefill}", f"run.name={prefill}")
        train(config, progress=silent)
        state = load(newest(config.run_directory / "checkpoints")).tensors["f2c"]
        slots[prefill] = len(state["_extra_state.identities"])
    assert slots["true"] == 13
    assert slots["false"] <= 3


def test_a_run_thrown_back_by_a_kill_and_a_damaged_checkpoint(tmp_path):
    # A save beside training would go on here after its process is dead.
    at_once = "train.staging_gib=0"
    whole = make(tmp_path, "run.name=whole")
    killed = make(tmp_path, "run.name=killed", at_once)
    train(whole, progress=silent)

    class Killed(Exception):
        pass

    class Display(SilentProgress):
        def update(self, snapshot):
            if snapshot.step == 7:
                raise Killed  # nothing is saved on the way out: as with kill -9

    with pytest.raises(Killed):
        train(killed, progress=lambda name, *, num_steps: Display())
    checkpoints = killed.run_directory / "checkpoints"
    assert newest(checkpoints).name == "step-00000006"
    content = (checkpoints / "step-00000006" / "head.safetensors").read_bytes()
    (checkpoints / "step-00000006" / "head.safetensors").write_bytes(content[:-4] + b"\0\0\0\1")
    with (killed.run_directory / "events.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    train(killed, resume=True, progress=silent)
    assert_same_end(whole.run_directory, killed.run_directory)
    events = read_events(killed.run_directory / "events.jsonl")
    assert [e["step"] for e in events if e["kind"] == "start"] == [0, 4]
    warnings = [e["text"] for e in events if e["kind"] == "warning"]
    assert ["times the center's first length" in text for text in warnings] == [True, False]
    assert "head.safetensors is damaged" in warnings[1]


def test_disk_full_stops_the_run_and_the_earlier_checkpoint_carries_on(tmp_path, monkeypatch):
    whole, full = make(tmp_path, "run.name=whole"), make(tmp_path, "run.name=full")
    train(whole, progress=silent)
    write_file = stream_module.write_file

    def failing(path, chunks, **options):
        if ".tmp-6-" in str(path) and path.name == "head.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_file(path, chunks, **options)

    monkeypatch.setattr(sys.modules["manyface.checkpoint.save"], "write_file", failing)
    with pytest.raises(CheckpointError, match=r"step-00000006.*errno 28.*step-00000004"):
        train(full, progress=silent)
    monkeypatch.undo()
    train(full, resume=True, progress=silent)
    assert_same_end(whole.run_directory, full.run_directory)


PROGRAM = """
import sys
from manyface.base.errors import ManyfaceError
from manyface.config import load_config
from manyface.train import train
try:
    train(load_config(sys.argv[1]))
except ManyfaceError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_names_the_checkpoint(tmp_path, number, code):
    config = make(tmp_path, "run.name=whole", "schedule.steps=100000", "evaluation.every_steps=0")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(config.to_toml())
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(recipe)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    events = config.run_directory / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and '"step": 4' in events.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    path = newest(config.run_directory / "checkpoints")
    assert str(path) in out
    assert f"manyface train {config.run_directory / 'config.toml'} --resume" in out
    assert "Traceback" not in err
    assert "\r" not in err  # no bar where there is no terminal
    load(path)


def test_a_net_that_blows_up_stops_and_names_the_last_checkpoint(tmp_path):
    config = make(tmp_path, "optimizer.learning_rate=1e30", "optimizer.clip_norm=0")
    with pytest.raises(NonFiniteError, match=r"training stopped.* at step \d.*checkpoint"):
        train(config, progress=silent)


def test_a_run_is_not_trained_twice_by_accident(tmp_path):
    config = make(tmp_path, "schedule.steps=2", "schedule.warmup_steps=0")
    first = train(config, progress=silent)
    with pytest.raises(ConfigError, match="--resume"):
        train(config, progress=silent)
    again = train(config, resume=True, progress=silent)  # complete: only the result is made again
    assert again.result["steps"] == 2
    assert again.result["sets"] == first.result["sets"]
    assert train(config, force=True, progress=silent).result["sets"] == first.result["sets"]


def test_a_stop_while_a_finished_run_is_scored_again_keeps_its_scores(tmp_path):
    config = make(tmp_path, "schedule.steps=2", "schedule.warmup_steps=0")
    result = train(config, progress=silent).directory / "result.json"
    before = result.read_bytes()
    stop = StopFlag()
    stop.request(signal.SIGINT)
    with pytest.raises(Interrupted, match="step-00000002"):
        train(config, resume=True, progress=silent, stop=stop)
    assert result.read_bytes() == before


def test_what_a_run_leaves(tmp_path):
    slow = "head.learning_rate=1e-4"  # which nothing is to be warned of
    config = make(tmp_path, "train.ema=0.9", "train.tensorboard=true", slow)
    result = train(config, progress=silent)
    run = result.directory
    assert json.loads((run / "result.json").read_text()) == result.result
    for key in ("verification_accuracy", "auc", "images_per_second", "train_seconds"):
        assert result.result[key] > 0, key
    assert result.result["tar_at_far"].keys() == {"0.1"}
    assert result.result["peak_memory_bytes"] > 50 * 2**20
    kinds = [event["kind"] for event in read_events(run / "events.jsonl")]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert set(kinds) == {"start", "step", "evaluation", "checkpoint", "end"}
    assert list((run / "tensorboard").iterdir())
    again = evaluate_run(run)
    assert again["synthetic"].summary()["auc"] == result.result["auc"]
    best = evaluate_run(run, checkpoint="best", overrides=["evaluation.num_pairs=80"])
    assert len(best["synthetic"].same) == 80
    assert list((run / "evaluation").glob("step-*/synthetic.npz"))
    with pytest.raises(CheckpointError, match="no checkpoint 'step-00000099'"):
        evaluate_run(run, checkpoint="step-00000099")
    with pytest.raises(CheckpointError, match="is no run"):
        evaluate_run(tmp_path)


def test_other_pairs_are_other_pairs_until_one_is_the_best(tmp_path):
    """Though the run that was resumed with them was killed before it saved anything."""
    stop = StopFlag()
    with pytest.raises(Interrupted):
        train(make(tmp_path), progress=stopping_after(5, stop), stop=stop)
    other = make(tmp_path, "evaluation.num_pairs=80")
    directory = other.run_directory
    assert not places.is_judged_otherwise(directory, make(tmp_path, "evaluation.every_steps=3"))
    places.begin(directory, other, resume=True)  # then it was killed
    assert places.is_judged_otherwise(directory, other)


def test_a_signal_while_the_last_checkpoint_is_written_loses_no_result(tmp_path, monkeypatch):
    stop, save = StopFlag(), Saver.save

    def signalled(self, method, position, *, best=False, at_once=False):
        save(self, method, position, best=best, at_once=at_once)
        stop.request()

    monkeypatch.setattr(Saver, "save", signalled)
    monkeypatch.setattr(build, "build_evaluators", lambda *_, **more: [])
    config = make(tmp_path, "train.checkpoint_every=0")
    run = train(config, progress=silent, stop=stop).directory
    assert (run / "result.json").exists()


def test_other_pairs_begin_the_best_score_anew(tmp_path):
    stop = StopFlag()
    with pytest.raises(Interrupted):
        train(make(tmp_path), progress=stopping_after(5, stop), stop=stop)
    run = make(tmp_path).run_directory
    stopped = read_position(load(newest(run / "checkpoints")))
    said = []

    class Display(SilentProgress):
        def message(self, text):
            said.append(text)

    other = make(tmp_path, "evaluation.num_pairs=80", "evaluation.every_steps=8")
    result = train(other, resume=True, progress=lambda name, *, num_steps: Display()).result
    ended = read_position(load(newest(run / "checkpoints")))
    assert stopped.best_score is not None
    assert ended.best_score == result["verification_accuracy"]
    assert any("best score begins anew" in text for text in said)

import json
import math
from pathlib import Path

import pytest

from manyface.base.errors import WriteError
from manyface.observe.events import EventLog, read_events


def test_losses_survive_the_file_bit_for_bit(tmp_path):
    losses = [math.pi * 10**k for k in range(-20, 20)]
    with EventLog(tmp_path / "events.jsonl") as log:
        for step, loss in enumerate(losses):
            log.write("step", step=step, loss=loss)
    assert [event["loss"].hex() for event in read_events(log.path)] == [x.hex() for x in losses]


def test_torn_last_line_is_skipped_and_cut_by_the_next_writer(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    assert [event["step"] for event in read_events(path)] == [1]
    with EventLog(path) as log:
        log.write("step", step=2)
    assert [event["step"] for event in read_events(path)] == [1, 2]


@pytest.mark.parametrize("damage", [b"[3]", b'{"kind": "st', b"\0\0\xff", b"{}"])
def test_damaged_lines_are_left_out_and_named(tmp_path, damage):
    path = tmp_path / "events.jsonl"
    good = [b'{"kind": "step", "step": 1}', b'{"kind": "end", "step": 1}']
    path.write_bytes(b"\n".join([good[0], damage, good[1], damage, b""]))
    warnings = []
    assert [event["kind"] for event in read_events(path, warn=warnings.append)] == ["step", "end"]
    (text,) = warnings
    assert text.startswith(f"{path}, line 2: ")
    assert "2 damaged lines" in text


def test_a_resume_supersedes_what_came_after_its_step(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write("start", step=0)
        for step in (1, 2, 3):
            log.write("step", step=step, loss=1.0)
        log.write("start", step=2)
        log.write("step", step=3, loss=2.0)
    events = read_events(log.path)
    assert [(e["kind"], e["step"]) for e in events] == [
        ("start", 0),
        ("step", 1),
        ("step", 2),
        ("start", 2),
        ("step", 3),
    ]
    assert len(read_events(log.path, superseded=True)) == 6


def test_bytes_of_a_name_that_are_no_utf_8_are_spelt_out(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write("evaluation", sets=[{"name": "caf\udce9"}])
    (event,) = read_events(tmp_path / "events.jsonl")
    assert event["sets"] == [{"name": "caf\\udce9"}]


def test_seconds_go_on_after_a_resume_and_numbers_json_lacks_become_null(tmp_path):
    ticks = iter([100.0, 101.5])
    with EventLog(tmp_path / "e.jsonl", seconds_before=60.0, clock=lambda: next(ticks)) as log:
        log.write("step", step=1, loss=math.nan, nested=[{"value": math.inf}])
    event = json.loads(log.path.read_text())
    assert event == {
        "kind": "step",
        "seconds": 61.5,
        "step": 1,
        "loss": None,
        "nested": [{"value": None}],
    }


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"missing.*errno 2"):
        EventLog(tmp_path / "missing" / "events.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("action", ["write", "sync", "leave unwritten"])
def test_a_full_disk_is_named_with_path_and_errno(tmp_path, action):
    actions = {
        "write": lambda log: log.write("step", step=1),  # and closing the log tries it again
        "sync": lambda log: log.sync(),  # which a device refuses
        "leave unwritten": lambda log: log._file.write("x"),
    }
    log = EventLog(tmp_path / "events.jsonl")
    log._file.close()
    log._file = Path("/dev/full").open("a")  # noqa: SIM115  closed by the log
    with pytest.raises(WriteError, match=r"cannot write .*events\.jsonl: .*errno \d+.*; free"), log:
        actions[action](log)

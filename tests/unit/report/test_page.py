"""The page: complete, self-contained, safe with hostile names; broken runs are said."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from manyface.base.errors import DataError, WriteError
from manyface.report import read_run, read_runs, write_report

from .fake_runs import make_run

_VOID = {"meta", "link", "img", "path", "circle", "br"}


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> str:
    """The visible text of a well-formed page."""
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    return " ".join(parser.text).replace("\u00a0", " ")


@pytest.fixture(scope="session")
def page(demo: Path) -> str:
    return write_report([demo], demo / "report.html").read_text()


def test_page_shows_every_method_and_section(page: str) -> None:
    text = parsed(page)
    for wanted in [
        "Full FC", "Partial FC", "whitened pixels", "untrained backbone", "68.4 % ± 2.0",
        "TAR at FAR 10 %", "TAR at FAR 1 %", "6,000", "60,000 images", "1.2 GB", "998 MB",
        "3 min 7 s", "1,500 steps of 128", "Training loss", "Learning rate", "Images per second",
        "Paired comparison", "Full FC − Partial FC", "ROC", "Similarity, Partial FC",
        "The most confident mistakes", "taken for", "Reproduce", "git checkout 0123abc",
        "manyface train", "2.13.0", "bootstrap over identities",
    ]:  # fmt: skip
        assert wanted in text, wanted
    assert page.count('src="data:image/jpeg;base64,') == 2 * 2 * 12


def test_a_method_without_class_centers_names_its_pool(tmp_path: Path) -> None:
    for name, pool in (("share", {"ratio": 0.1, "slots": None}), ("number", {"slots": 1200})):
        run = make_run(tmp_path / name, name, method="f2c", sample_rate=None, pool=pool)
        page = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
        assert ("pool of 10 %" if name == "share" else "pool of 1,200") in page


def test_page_needs_nothing_but_itself(page: str) -> None:
    outside = re.findall(
        r"""(?:src|href)\s*=\s*["'](?!data:)|https?:|@import|url\(|<script""", page
    )
    assert outside == []
    assert "default-src 'none'" in page
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page


def test_page_repeats_byte_for_byte(demo: Path, page: str, tmp_path: Path) -> None:
    assert write_report([demo], tmp_path / "new/again.html").read_text() == page


def test_runs_and_demo_can_be_mixed_and_order_is_kept(demo: Path) -> None:
    runs, baselines = read_runs([demo / "partial", demo / "full"])
    assert [run.name for run in runs] == ["Partial FC", "Full FC"]
    assert baselines == []
    runs, baselines = read_runs([demo])
    assert [run.name for run in runs] == ["Full FC", "Partial FC"]
    assert [row["name"] for row in baselines] == ["whitened pixels", "untrained backbone"]


def test_a_folder_of_runs_stands_for_all_in_it(demo: Path, tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_run(tmp_path / "runs" / name, name, num_pairs=100)
    (tmp_path / "runs/a/result.json").unlink()  # still going
    (tmp_path / "runs/notes").mkdir()
    (tmp_path / "runs/report.html").touch()
    shutil.copytree(demo, tmp_path / "runs/demo")
    runs, baselines = read_runs([tmp_path / "runs"])
    assert [run.name for run in runs] == ["a", "b", "Full FC", "Partial FC"]
    assert len(baselines) == 2
    assert "a has not finished" in parsed(
        write_report([tmp_path / "runs"], tmp_path / "page.html").read_text()
    )


def test_a_demo_that_is_still_going_shows_what_it_has(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "demo")
    (tmp_path / "demo/partial/result.json").unlink()
    assert len(read_runs([tmp_path / "demo"])[0]) == 2


def test_damaged_events_are_left_out_with_a_warning(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "run", num_pairs=100)
    with (run / "events.jsonl").open("a") as log:
        log.write('not json\n{"kind": "warning", "text": "after it"}\n')
    warnings: list[str] = []
    page = write_report([run], tmp_path / "report.html", warn=warnings.append)
    assert "after it" in parsed(page.read_text())
    assert str(run / "events.jsonl") in warnings[0]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / place, "lfw", num_pairs=100) for place in ("a", "b")]
    names = [run.name for run in read_runs(runs)[0]]
    assert names == [f"lfw ({runs[0]})", f"lfw ({runs[1]})"]


def test_names_and_messages_cannot_inject_markup(tmp_path: Path) -> None:
    hostile = '<script>alert("1")</script> & <b>'
    run = make_run(tmp_path / "x y'z", hostile, num_pairs=100, device=hostile)
    with (run / "events.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "warning", "text": hostile}) + "\n")
    (run / "config.toml").write_text(f'name = "{hostile}"')
    page = write_report([run], tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert parsed(page).count(hostile) >= 4


def test_a_run_that_has_just_begun_is_shown_as_such(tmp_path: Path) -> None:
    run = tmp_path / "young"
    run.mkdir()
    step = {"kind": "step", "step": 1, "loss": None, "learning_rate": 0.1}
    lines = [{"kind": "start", "step": 0}, step, {**step, "step": 2, "loss": 5.0}]
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"ki')
    text = parsed(write_report([run], tmp_path / "report.html").read_text())
    assert "young has not finished" in text
    assert "Training loss" in text
    assert "ROC" not in text


def test_a_run_whose_loss_was_never_finite_has_no_loss_curve(tmp_path: Path) -> None:
    run = tmp_path / "lost"
    run.mkdir()
    (run / "events.jsonl").write_text('{"kind": "step", "step": 1, "loss": null}\n')
    assert "Training loss" not in write_report([run], tmp_path / "report.html").read_text()


def test_without_identities_pairs_are_resampled(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, num_pairs=100) for name in ("a", "b")]
    for run in runs:
        path = run / "evaluation/synthetic.npz"
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("similarity", "same", "fold")}
        np.savez(path, **arrays)
    text = parsed(write_report(runs, tmp_path / "report.html").read_text())
    assert "bootstrap over pairs" in text


def test_runs_on_other_pairs_are_not_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(n), str(n), num_pairs=n) for n in (100, 200)]
    text = parsed(write_report(runs, tmp_path / "report.html").read_text())
    assert "Paired comparison" not in text


def test_missing_and_empty_directories_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither result\.json nor events\.jsonl"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="at least one run directory"):
        read_runs([])


@pytest.mark.parametrize(
    "name, content",
    [
        ("result.json", b"{"),
        ("result.json", b"[1, 2]"),
        ("result.json", b"\xff\xfe"),
        ("config.toml", b"\xff\xfe"),
        ("evaluation/synthetic.npz", b"PK not a zip"),
        ("evaluation/synthetic.npz", b""),
        ("evaluation/synthetic-errors.npz", b"PK\x03\x04"),
    ],
)
def test_broken_files_are_named_and_an_older_page_is_kept(
    tmp_path: Path, name: str, content: bytes
) -> None:
    run = make_run(tmp_path / "run", "run", num_pairs=100)
    output = write_report([run], tmp_path / "report.html")
    before = output.read_bytes()
    (run / name).write_bytes(content)
    with pytest.raises(DataError, match=r"broken|cannot read|expected"):
        write_report([run], output)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"similarity": np.zeros(3)}, "expected the arrays similarity, same, fold"),
        ({"similarity": np.zeros(3), "same": np.zeros(2), "fold": np.zeros(3)}, "of one length"),
        ({"similarity": np.array([{}])}, "broken"),
    ],
)
def test_wrong_arrays_are_said(tmp_path: Path, arrays: dict, message: str) -> None:
    run = make_run(tmp_path / "run", "run", num_pairs=100)
    np.savez(run / "evaluation/synthetic.npz", allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=message):
        read_run(run)


def test_a_place_that_cannot_be_written_is_said(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*file/report\.html"):
        write_report([demo], tmp_path / "file/report.html")

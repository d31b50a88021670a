"""A table of class centers is written and read without a second one in memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from manyface.config import load_config
from manyface.observe.progress import SilentProgress
from manyface.train import train

RECIPE = Path(__file__).parents[2] / "recipes" / "ten-million.toml"
MIB = 2**20
PROGRAM = """
import sys
from pathlib import Path

import torch

import manyface as mf
from manyface.centers import InFiles, RowSGD
from manyface.observe import MemoryMeter
from manyface.observe.memory import resident_bytes
from manyface.train.method import Classification
from manyface.train.state import Position, resume_state, save_state

folder, placement = Path(sys.argv[1]), sys.argv[2]
before = resident_bytes()


def method(name):
    head = mf.PartialFC(
        num_classes=240_000, dim=512, margin=mf.CosFace(0.4), sample_rate=0.001,
        optimizer=RowSGD(mode="lazy-exact"),
        place=InFiles(folder / name) if placement == "file" else None,
    )
    net = torch.nn.Linear(8, 512)
    return Classification(
        net, head, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        learning_rate=0.1, device=torch.device("cpu"), head_learning_rate=0.1,
    )


def step(one, seed):
    draw = torch.Generator().manual_seed(seed)
    one.begin_step()
    images = torch.randn(16, 8, generator=draw)
    labels = torch.randint(240_000, (16,), generator=draw)
    loss = one.head(one.net(images), labels)
    loss.backward()
    one.update(1.0)
    return loss.item()


with MemoryMeter(interval_seconds=0.005) as meter:
    one = method("first")
    for seed in range(3):
        step(one, seed)
    save_state(folder / "checkpoints", one, Position(step=3))
    saved = meter.peak_bytes
ends = [step(one, seed) for seed in (3, 4)]
ids = torch.arange(0, 240_000, 1000)
centers = one.head.class_centers(ids)
del one

with MemoryMeter(interval_seconds=0.005) as meter:
    again = method("second")
    resume_state(folder / "checkpoints", again)
    resumed = meter.peak_bytes
assert [step(again, seed) for seed in (3, 4)] == ends
assert torch.equal(again.head.class_centers(ids), centers)
print(saved - before, resumed - before)
"""


@pytest.mark.slow
def test_the_recipe_for_ten_million_starts(tmp_path: Path) -> None:
    small = {
        "run.directory": tmp_path,
        "head.placement_folder": tmp_path / "centers",
        "data.synthetic.num_identities": 1000,
        "schedule.steps": 3,
        "schedule.warmup_steps": 1,
        "train.batch_size": 8,
        "evaluation.num_pairs": 40,
        "evaluation.num_identities": 40,
        "evaluation.folds": 2,
    }
    config = load_config(RECIPE, [f"{key}={value}" for key, value in small.items()])
    result = train(config, progress=lambda name, *, num_steps: SilentProgress())
    assert result.result["steps"] == 3
    assert (tmp_path / "centers" / "weight.rows").stat().st_size == 1000 * 512 * 2


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "file"])
def test_saving_and_resuming_take_the_table_and_little_more(tmp_path: Path, placement: str) -> None:
    """240,000 centers of 512 numbers and their momentum: 940 MiB; in mid-window of lazy-exact."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), placement],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    saved, resumed = (int(word) / MIB for word in done.stdout.split())
    table = 240_000 * (512 * 8 + 4) / MIB if placement == "device" else 0
    print(f"{placement}: {saved:.0f} and {resumed:.0f} MiB, table {table:.0f} MiB")
    assert table <= saved < table + 300
    assert table <= resumed < table + 300

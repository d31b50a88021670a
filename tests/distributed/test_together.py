"""What goes wrong on one rank is said on all: before a run, in heads, in exports."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import on_ranks
from test_training import run

import manyface as mf
from manyface.base.errors import ConfigError, DataError, LabelError, ManyfaceError
from manyface.margins import CosFace
from manyface.parallel import ALONE, Ranks, all_or_none


def fail_on(bad: list[int], kind: type[Exception]) -> str:
    ranks = Ranks()
    try:
        with all_or_none(ranks, "a step"):
            if ranks.rank in bad:
                raise kind(f"broken {ranks.rank}")
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        ranks.wait_for_all("afterwards")  # they still understand each other
        return text
    return "fine"


@pytest.mark.parametrize("kind", [DataError, OSError, ValueError])
def test_all_fail_with_the_words_of_the_first_that_did(kind: type[Exception]) -> None:
    assert on_ranks(fail_on, 3, [], kind) == ["fine"] * 3
    found = on_ranks(fail_on, 3, [1, 2], kind)
    said = "broken 1" if issubclass(kind, ManyfaceError) else f"{kind.__name__}: broken 1"
    assert found[0] == f"PeerFailedError: rank 1: {said}"
    assert found[1:] == [f"{kind.__name__}: broken 1", f"{kind.__name__}: broken 2"]


def run_otherwise_on(rank: int, folder: Path, overrides: list[str]) -> str:
    return run(folder, overrides if Ranks().rank == rank else [])


@pytest.mark.parametrize("size, rank", [(2, 1), (3, 0), (3, 2)])
def test_data_that_is_missing_on_one_rank_is_named_on_all(
    tmp_path: Path, size: int, rank: int
) -> None:
    found = on_ranks(run_otherwise_on, size, rank, tmp_path, ["data.path=/nonexistent"])
    assert all("data.path: no such data: /nonexistent" in text for text in found), found
    assert sum(text.startswith(f"PeerFailedError: rank {rank}: ") for text in found) == size - 1


@pytest.mark.parametrize(
    "override", ["head.scale=20", "run.seed=3", "train.checkpoint_every=2", "train.batch_size=6"]
)
def test_another_recipe_on_one_rank_is_refused(tmp_path: Path, override: str) -> None:
    found = on_ranks(run_otherwise_on, 2, 1, tmp_path, [override])
    key = override.partition("=")[0]
    assert all(f"rank 1 has another recipe than rank 0: {key} is" in text for text in found), found
    assert not (tmp_path / "run" / "config.toml").exists()


def restarts_and_forces(folder: Path) -> str:
    os.environ["TORCHELASTIC_MAX_RESTARTS"] = "2"
    return run(folder, [], force=True)


def test_forcing_under_a_launcher_that_restarts_is_refused(tmp_path: Path) -> None:
    found = on_ranks(restarts_and_forces, 2, tmp_path)
    assert all("--force would delete the run again" in text for text in found)


def head_before_the_group(asked: bool) -> str:
    store = dist.distributed_c10d._get_default_store()
    rank = dist.get_rank()
    dist.destroy_process_group()
    options: dict[str, Any] = {"ranks": ALONE} if asked else {}
    head = mf.FullFC(num_classes=9, dim=4, margin=CosFace(0.4), **options)
    store = dist.PrefixStore("again", store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        head(torch.randn(2, 4), torch.tensor([0, 1]))
    except ConfigError as error:
        return str(error)
    return "trains"


def test_a_head_made_before_the_group_is_refused_unless_it_was_meant() -> None:
    assert all(
        "call init_process_group first" in t for t in on_ranks(head_before_the_group, 2, False)
    )
    assert on_ranks(head_before_the_group, 2, True) == ["trains"] * 2


def announce_and_give(given: list[int]) -> str:
    head = mf.FullFC(num_classes=9, dim=4, margin=CosFace(0.4))
    labels = torch.tensor([1, 2])
    head.announce(labels)
    try:
        head(torch.randn(2, 4), labels if head.ranks.rank == 0 else torch.tensor(given))
    except LabelError as error:
        return str(error)
    return "trains"


def test_announced_labels_may_be_copied_but_not_changed() -> None:
    assert on_ranks(announce_and_give, 2, [1, 2]) == ["trains"] * 2
    head = mf.FullFC(num_classes=9, dim=4, margin=CosFace(0.4))
    head.announce(torch.tensor([1, 2]))
    with pytest.raises(LabelError, match="other labels were announced"):
        head(torch.randn(2, 4), torch.tensor([1, 3]))


def head_made_with(of_rank_1: dict[str, Any]) -> str:
    options: dict[str, Any] = {"num_classes": 9, "dim": 4, "margin": CosFace(0.4)}
    head = mf.PartialFC(**{**options, **(of_rank_1 if Ranks().rank == 1 else {})})
    try:
        for _ in range(2):
            head(torch.randn(2, 4), torch.tensor([1, 2])).item()
    except ConfigError as error:
        return str(error)
    return "trains"


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3},
        {"num_classes": 12},
        {"sample_rate": 0.3},
        {"scale": 20.0},
        {"margin": CosFace(0.3)},
        {"label_smoothing": 0.1},
        {"dtype": torch.float64},
        {"momentum": 0.5},
    ],
    ids=str,
)
def test_heads_with_other_arguments_are_refused(options: dict[str, Any]) -> None:
    found = on_ranks(head_made_with, 2, options)
    assert all("the head of rank 1 is another than that of rank 0" in text for text in found), found


def test_heads_with_the_same_arguments_train() -> None:
    assert on_ranks(head_made_with, 2, {}) == ["trains"] * 2

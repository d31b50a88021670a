"""The self-test of ranks, on real gloo processes: what is right, and who is named if it is not."""

import re
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import on_ranks, outcomes, wait_for_file

from manyface.base.errors import PeerError
from manyface.parallel import Ranks
from manyface.parallel.selftest import (
    FAILED,
    OK,
    WARNING,
    Absent,
    Check,
    check_clock,
    check_collectives,
    check_folder,
    check_placement,
    check_same,
    meet,
    ranks_text,
    roll_call,
    tell,
)

SIZES = (1, 2, 3)
SMALL = (64, 2**12)
CPU = torch.device("cpu")


def everything(folder: Path) -> list[Check]:
    ranks = Ranks()
    roll_call(ranks, "all", seconds=20)
    told = tell(ranks, {"rank": ranks.rank, "version": "1.2"})
    assert [each["rank"] for each in told] == list(range(ranks.size))
    return [
        check_same("version", [each["version"] for each in told]),
        check_clock(ranks),
        check_folder(ranks, folder),
        *check_collectives(ranks, CPU, sizes=SMALL),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_ranks_that_agree(size: int, tmp_path: Path) -> None:
    found = on_ranks(everything, size, tmp_path)
    assert all([check.state for check in checks] == [OK] * len(checks) for checks in found)
    kinds = ["collectives"] if size == 1 else ["all-gather", "all-reduce", "reduce-scatter"]
    assert [check.name for check in found[0]] == ["version", "clock", "folder", *kinds]
    assert all(checks == found[0] for checks in found)  # the figures too: of the slowest rank
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "state", "text"),
    [
        (["1", "1", "1"], OK, "1"),
        (["1", "2", "1"], FAILED, "rank 1: 2; the others: 1"),
        (["2", "1", "1", "3", "1", "3"], FAILED, "rank 0: 2; ranks 3, 5: 3; the others: 1"),
        (["1"], OK, "1"),
    ],
)
def test_who_has_another_version_is_named(values: list[str], state: str, text: str) -> None:
    assert check_same("torch", values) == Check("torch", state, text)  # type: ignore[arg-type]


def tell_another_version(odd: int) -> Check:
    ranks = Ranks()
    told = tell(ranks, {"version": "9.9" if ranks.rank == odd else "1.2"})
    return check_same("torch", [each["version"] for each in told])


@pytest.mark.parametrize("odd", [0, 2])
def test_a_rank_with_another_version(odd: int) -> None:
    expected = Check("torch", FAILED, f"rank {odd}: 9.9; the others: 1.2")
    assert on_ranks(tell_another_version, 3, odd) == [expected] * 3


def with_shifted_clock(shifts: list[float]) -> Check:
    ranks = Ranks()
    return check_clock(ranks, now=lambda: time.time() + shifts[ranks.rank])


@pytest.mark.parametrize("shifts", [[0.0, 0.0, 5.0], [7.0, 0.0, 0.0], [0.0, -3600.0, 0.0]])
def test_a_clock_that_is_off_is_named(shifts: list[float]) -> None:
    (odd,) = (rank for rank, shift in enumerate(shifts) if shift)
    for check in on_ranks(with_shifted_clock, 3, shifts):
        assert check.state == WARNING
        ((rank, seconds),) = re.findall(r"rank (\d) ([+-][\d.]+) s", check.text)
        assert int(rank) == odd
        assert float(seconds) == pytest.approx(shifts[odd], abs=0.5)


def test_a_second_is_no_skew() -> None:
    for check in on_ranks(with_shifted_clock, 2, [0.0, 1.0]):
        assert check.state == OK
        assert 0.5 < float(check.text.split()[1]) < 1.5


def look_into(folders: list[Path]) -> Check:
    ranks = Ranks()
    return check_folder(ranks, folders[ranks.rank], patience=0.2)


@pytest.mark.parametrize("odd", [1, 2])
def test_a_folder_that_is_not_shared(odd: int, tmp_path: Path) -> None:
    folders = [tmp_path / ("other" if rank == odd else "shared") for rank in range(3)]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    for check in on_ranks(look_into, 3, folders):
        assert check.state == FAILED
        assert check.text.startswith("what rank 0 writes into")
        assert f"is not seen by rank {odd};" in check.text
    assert not [*folders[0].iterdir()]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for check in on_ranks(look_into, 2, [tmp_path / "none"] * 2):
        assert check.state == FAILED
        assert "rank 0 cannot write into" in check.text
        assert "No such file" in check.text


def see_old_names(folder: Path) -> Check:
    """As a file system does that remembers names: the old one stays on one rank."""
    ranks = Ranks()
    if ranks.rank == 1:
        seen = Path.exists
        Path.exists = lambda path: True if "selftest" in path.name else seen(path)  # type: ignore
    return check_folder(ranks, folder, patience=0.2)


def test_a_rename_that_is_not_seen(tmp_path: Path) -> None:
    for check in on_ranks(see_old_names, 3, tmp_path):
        assert check == Check("folder", FAILED, f"a rename in {tmp_path} is not seen by rank 1")


def come_late(late: int, named: Path) -> str:
    ranks = Ranks()
    if ranks.rank == late:
        wait_for_file(named, 30)
        return "slept"
    try:
        roll_call(ranks, "clock", seconds=3)
    except Absent as error:
        return str(error)
    finally:
        if ranks.rank == 0:
            named.touch()
    return "nobody was missed"


def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    first = outcomes(come_late, 3, 2, tmp_path / "named")[0]
    assert first[0], first
    assert "not all ranks came to 'clock' within 3 s" in first[1]
    assert "anks 2 failed to pass" in first[1], first[1]


def hang_in_the_file_system(folder: Path) -> str:
    ranks = Ranks()
    if ranks.rank == 1:
        Path.read_text = lambda *_, **__: time.sleep(4) or ""  # type: ignore
    try:
        roll = lambda name: roll_call(ranks, name, seconds=1)  # noqa: E731
        return check_folder(ranks, folder, patience=0.2, roll=roll).state
    except Absent as error:
        return str(error)
    except PeerError:
        return "a collective failed"


def test_a_rank_that_hangs_in_its_file_system_is_named(tmp_path: Path) -> None:
    first = outcomes(hang_in_the_file_system, 2, tmp_path)[0]
    assert first[0], first
    assert "'folder'" in first[1]
    assert "1 failed to pass" in first[1]


def test_who_does_not_come_to_the_rendezvous_is_named(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 4)
    store.set("here-2", "here")
    with pytest.raises(Absent, match="ranks 1, 3 of 4 did not come"):
        meet(store, rank=0, size=4, seconds=0.2)
    for rank in (1, 3):
        store.set(f"here-{rank}", "here")
    meet(store, rank=0, size=4, seconds=0.2)


def gather_wrongly() -> list[Check]:
    ranks = Ranks()
    if ranks.rank == 1:
        right = Ranks.sum_
        Ranks.sum_ = lambda self, values, name: right(self, values, name).add_(1)  # type: ignore
    return check_collectives(ranks, CPU, sizes=SMALL)


def test_wrong_numbers_are_seen() -> None:
    for checks in on_ranks(gather_wrongly, 2):
        states = {check.name: (check.state, check.text) for check in checks}
        assert states["all-reduce"] == (FAILED, "rank 1 got wrong numbers")
        assert states["all-gather"][0] == states["reduce-scatter"][0] == OK


def test_two_ranks_on_one_gpu() -> None:
    shared = check_placement([("a", "cuda:0"), ("a", "cuda:0"), ("b", "cuda:0")])
    assert shared.state == FAILED
    assert shared.text.startswith("ranks 0-1 share cuda:0 of a;")
    assert check_placement([("a", "cuda:0"), ("b", "cuda:0")]).text == "2 ranks on 2 hosts"
    assert check_placement([("a", "cpu"), ("a", "cpu")]).state == OK


def test_ranks_in_words() -> None:
    assert ranks_text([3]) == "rank 3"
    assert ranks_text([5, 0, 1, 2]) == "ranks 0-2, 5"

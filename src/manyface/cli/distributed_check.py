"""`manyface doctor --distributed`: what the ranks of a launcher find out about each other."""

import hashlib
import os
import platform
import resource
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import manyface
from manyface.base.errors import ManyfaceError, PeerError
from manyface.cli.console import format_bytes

if TYPE_CHECKING:
    import torch

    from manyface.parallel import Ranks
    from manyface.parallel.selftest import Check

_START = "torchrun --nproc-per-node 8 -m manyface doctor --distributed"
_SAME = ("python", "torch", "numpy", "manyface", "kind of device")
_SHOWN = 16  # ranks in lines of their own
_LEAST_FILES, _LEAST_MEMORY, _LEAST_DISK = 4096, 2 * 2**30, 10 * 2**30
_SHARED = Path("/dev/shm")  # noqa: S108  where NCCL keeps buffers

Step = Callable[[], "list[Check]"]


def check_ranks(
    recipe: Path | None, overrides: Sequence[str], folder: Path | None, *, seconds: float
) -> None:
    """Check and print, on the first rank; exit 1 where something has failed.

    Raises:
        ManyfaceError: there is no launcher, or on other ranks what the first one prints as failed.
    """
    from manyface.parallel.selftest import FAILED, Check, joined

    if "RANK" not in os.environ:
        raise ManyfaceError(f"--distributed asks all ranks; start it on every machine as: {_START}")
    if not 0 < seconds < 86_400:
        raise ManyfaceError(f"expected --timeout above 0 and below a day, got {seconds:g}")
    with ExitStack() as stack:
        try:
            ranks = stack.enter_context(joined(seconds=seconds))
        except ManyfaceError as error:
            if os.environ["RANK"] != "0":
                raise
            typer.echo(_line(Check("rendezvous", FAILED, str(error))))
            raise typer.Exit(1) from error
        if not _run(ranks, recipe, overrides, folder, seconds):
            raise typer.Exit(1)


def _run(
    ranks: "Ranks",
    recipe: Path | None,
    overrides: Sequence[str],
    folder: Path | None,
    seconds: float,
) -> bool:
    """Whether nothing has failed; the first rank prints line by line."""
    from manyface.parallel.selftest import FAILED, OK, Absent, Check, roll_call

    def tell(line: str) -> None:
        if ranks.rank == 0:
            typer.echo(line)

    tell(_line(Check("rendezvous", OK, f"{ranks.size} ranks have met")))
    found = []
    for name, step in _steps(ranks, recipe, overrides, folder, seconds):
        try:
            roll_call(ranks, name, seconds=seconds)
            checks = step()
        except (Absent, PeerError) as error:
            tell(_line(Check(name, FAILED, str(error))))
            if ranks.rank == 0:
                return False
            raise
        for check in checks:
            tell(_line(check))
        found += checks
    failed = [check.name for check in found if check.state == FAILED]
    tell(f"FAILED: {', '.join(failed)}" if failed else "The ranks can train together.")
    ranks.wait_for_all("the end")  # lest the launcher stops the first rank before it has printed
    return not failed


def _line(check: "Check") -> str:
    return f"{check.state:<8} {check.name}: {check.text}"


def _steps(
    ranks: "Ranks",
    recipe: Path | None,
    overrides: Sequence[str],
    folder: Path | None,
    seconds: float,
) -> Iterator[tuple[str, Step]]:
    """Checks in their order; later ones look at the facts that ranks have told in the first."""
    from manyface.parallel.selftest import check_clock, check_folder, roll_call, tell

    place, read = _read(recipe, overrides, folder)
    told: list[Any] = []

    def learn() -> "list[Check]":
        told.extend(tell(ranks, {**_facts(place), **read}))
        return _who_is_where(told)

    yield "ranks", learn
    yield "versions", lambda: _about_versions(told, has_recipe=recipe is not None)
    yield "clock", lambda: [check_clock(ranks)]
    roll = partial(roll_call, ranks, seconds=seconds)
    yield "folder", lambda: [check_folder(ranks, place, roll=roll)]
    yield "machines", lambda: _about_machines(told)
    if all(each["has device"] for each in told):
        yield "collectives", lambda: _about_collectives(ranks, told)


# --- what a rank says of itself -------------------------------------------------------------------


def _read(
    recipe: Path | None, overrides: Sequence[str], folder: Path | None
) -> tuple[Path, dict[str, str]]:
    """The folder to look at, and what the recipe comes to: a rank's own error is a fact too."""
    if recipe is None:
        return folder or Path.cwd(), {"recipe": "", "problem": ""}
    from manyface.train.directory import load_recipe

    try:
        config = load_recipe(recipe, overrides)
    except (ManyfaceError, OSError) as error:
        return folder or Path.cwd(), {"recipe": "", "problem": str(error)}
    text = config.model_dump_json()
    directory = Path(config.run.directory)
    place = folder or next(
        each for each in (directory, *directory.absolute().parents) if each.is_dir()
    )
    return place, {"recipe": hashlib.sha256(text.encode()).hexdigest()[:16], "problem": ""}


def _facts(folder: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    from manyface.observe.available import available_bytes

    device, has_device = _device()
    files, locked = (
        resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK)
    )
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": str(device),
        "has device": has_device,
        "kind of device": _kind(device) if has_device else device.type,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "manyface": manyface.__version__,
        "memory": available_bytes(),
        "disk": _free(folder),
        "shared memory": _free(_SHARED),
        "open files": files,
        "locked": locked,
    }


def _device() -> "tuple[torch.device, bool]":
    """What this rank computes on, and whether it is there."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu"), True
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local), local < torch.cuda.device_count()


def _kind(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


# --- what follows from it -------------------------------------------------------------------------


def _who_is_where(told: list[Any]) -> "list[Check]":
    from manyface.parallel.selftest import FAILED, OK, Check, check_placement, ranks_text

    found = [
        Check(f"rank {rank}", OK, f"{each['host']}, process {each['pid']}, {each['device']}")
        for rank, each in enumerate(told[:_SHOWN])
    ]
    if len(told) > _SHOWN:
        found = [
            Check(host, OK, f"{ranks_text(who)} on {told[who[0]]['kind of device']}")
            for host, who in _hosts(told).items()
        ]
    without = [rank for rank, each in enumerate(told) if not each["has device"]]
    if without:
        text = f"no GPU for {ranks_text(without)}; start fewer on that machine"
        return [*found, Check("devices", FAILED, text)]
    return [*found, check_placement([(each["host"], each["device"]) for each in told])]


def _hosts(told: list[Any]) -> dict[str, list[int]]:
    """Host -> its ranks."""
    found: dict[str, list[int]] = {}
    for rank, each in enumerate(told):
        found.setdefault(each["host"], []).append(rank)
    return found


def _about_versions(told: list[Any], *, has_recipe: bool) -> "list[Check]":
    from manyface.parallel.selftest import FAILED, Check, check_same, ranks_text

    found = [check_same(name, [each[name] for each in told]) for name in _SAME]
    if not has_recipe:
        return found
    problems = {rank: each["problem"] for rank, each in enumerate(told) if each["problem"]}
    if problems:
        first = next(iter(problems.values()))
        return [
            *found,
            Check("recipe", FAILED, f"{ranks_text([*problems])} cannot read it: {first}"),
        ]
    return [*found, check_same("recipe", [each["recipe"] for each in told])]


def _about_machines(told: list[Any]) -> "list[Check]":
    """Memory, disk and limits, a line for each host; of its ranks the one that has least."""
    from manyface.parallel.selftest import OK, WARNING, Check

    found = []
    for host, who in _hosts(told).items():
        of_host = [told[rank] for rank in who]
        memory = min(each["memory"] for each in of_host)
        disk = min((each["disk"] for each in of_host if each["disk"] is not None), default=None)
        files = min(_limit(each["open files"]) for each in of_host)
        words = "unlimited" if files == float("inf") else f"{files:.0f}"
        text = f"{format_bytes(memory)} of memory free, {_bytes(disk)} of disk, {words} open files"
        said = [*_warnings(of_host, memory=memory, disk=disk, files=files)]
        found.append(Check(host, WARNING if said else OK, "; ".join([text, *said])))
    return found


def _warnings(of_host: list[Any], *, memory: int, disk: int | None, files: float) -> Iterator[str]:
    if memory < _LEAST_MEMORY:
        yield "little memory"
    if disk is not None and disk < _LEAST_DISK:
        yield "little disk for checkpoints"
    if files < _LEAST_FILES:
        yield f"raise the limit of open files to {_LEAST_FILES}: ulimit -n {_LEAST_FILES}"
    if not of_host[0]["device"].startswith("cuda"):
        return
    if any(_limit(each["locked"]) != float("inf") for each in of_host):
        yield "locked memory is limited, which InfiniBand does not like: ulimit -l unlimited"
    shared = of_host[0]["shared memory"]
    if shared is not None and shared < 2**30:
        yield f"{_SHARED} has {format_bytes(shared)} free: give the container more (--shm-size)"


def _limit(value: int) -> float:
    return float("inf") if value == resource.RLIM_INFINITY else float(value)


def _bytes(size: int | None) -> str:
    return "no known bytes" if size is None else format_bytes(size)


def _about_collectives(ranks: "Ranks", told: list[Any]) -> "list[Check]":
    """On the devices that training would use: by NCCL if all have a GPU."""
    import torch
    import torch.distributed as dist

    from manyface.parallel import Ranks
    from manyface.parallel.selftest import check_collectives

    devices = [torch.device(each["device"]) for each in told]
    if ranks.is_alone or any(device.type != "cuda" for device in devices):
        return check_collectives(ranks, torch.device("cpu"))
    mine = devices[ranks.rank]
    torch.cuda.set_device(mine)
    return check_collectives(Ranks(dist.new_group(backend="nccl")), mine)

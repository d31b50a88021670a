"""`manyface doctor`: what this machine has, what is missing, and what to install for it."""

import os
import platform
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import manyface
from manyface.base.errors import ConfigError, to_install
from manyface.cli.console import format_bytes, make_console
from manyface.cli.options import Overrides

REQUIRED = (
    *("torch", "numpy", "simplejpeg", "pillow", "safetensors", "xxhash"),
    *("pydantic", "typer", "rich"),
)
OPTIONAL = {  # package -> extra
    "tensorboard": "tensorboard",
    "triton": "triton",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "faiss-cpu": "faiss",
    "lmdb": "lmdb",
    "pyarrow": "parquet",
    "fsspec": "remote",
    "scipy": "tinyface",
}
OTHER_BUILDS = {
    "onnxruntime": ("onnxruntime-gpu",),
    "faiss-cpu": ("faiss-gpu", "faiss-gpu-cu12"),
}


def doctor(
    distributed: Annotated[
        bool,
        typer.Option("--distributed", help="Check the ranks of torchrun, which has to start this."),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="With --distributed: a recipe that all must read alike.")
    ] = None,
    overrides: Overrides = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="With --distributed: a folder that all must share; the recipe's runs."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="With --distributed: seconds that ranks wait for each other.")
    ] = 60.0,
) -> None:
    """Show versions, devices, memory and disk, and which optional parts are missing.

    With --distributed: whether the ranks can train together. It ends with 1 if not.

    \b
    Examples:
      manyface doctor
      torchrun --nproc-per-node 8 -m manyface doctor --distributed --recipe recipe.toml
    """
    if distributed:
        from manyface.cli.distributed_check import check_ranks

        check_ranks(recipe, overrides or [], folder, seconds=timeout)
        return
    if recipe or overrides or folder:
        raise ConfigError("--recipe, --set and --folder are for --distributed; add it")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rows = [*_software(), *_devices(), *_room()]
    for name, value in rows:
        table.add_row(name, value)
    make_console().print(table)


def _software() -> list[tuple[str, str]]:
    rows = [
        ("manyface", f"{manyface.__version__}, {Path(manyface.__file__).parent}"),
        ("python", f"{platform.python_version()}, {platform.platform(terse=True)}"),
    ]
    rows += [(package, _installed(package) or "missing") for package in REQUIRED]
    for package, extra in OPTIONAL.items():
        missing = f"not there (optional): {to_install(extra)}"
        rows.append((package, _installed(package) or missing))
    return rows


def _devices() -> list[tuple[str, str]]:
    import torch

    from manyface.base.threads import usable_cores
    from manyface.kernels import choose

    rows = [
        ("cores", f"{usable_cores()} usable of {os.cpu_count()}"),
        ("threads", f"{torch.get_num_threads()} for torch (run.threads sets another number)"),
        ("cpu arithmetic", f"{torch.backends.cpu.get_cpu_capability()}, {_bf16()}"),
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = format_bytes(properties.total_memory)
        rows.append((f"cuda:{index}", f"{properties.name}, {memory}"))
    for device in ("cpu", "cuda"):
        rows.append((f"{device} kernels", str(choose(torch.device(device)))))
    if not torch.cuda.is_available():
        rows.append(("gpu", "none that torch can use; training runs on the CPU"))
    return rows


def _bf16() -> str:
    from manyface.train.devices import cpu_has_bf16

    return "bf16 (run.precision auto takes it)" if cpu_has_bf16() else "no bf16"


def _room() -> list[tuple[str, str]]:
    from manyface.observe.available import available_bytes
    from manyface.observe.memory import machine_bytes

    here = Path.cwd()
    disk = shutil.disk_usage(here)
    writable = "" if os.access(here, os.W_OK) else ", but not writable: set run.directory"
    return [
        ("memory", f"{format_bytes(available_bytes())} free of {format_bytes(machine_bytes())}"),
        ("disk", f"{format_bytes(disk.free)} free of {format_bytes(disk.total)}, {here}{writable}"),
    ]


def _installed(package: str) -> str | None:
    """Its version, or that of another build of the same module."""
    for build in (package, *OTHER_BUILDS.get(package, ())):
        with suppress(PackageNotFoundError):
            return version(build) if build == package else f"{version(build)} ({build})"
    return None

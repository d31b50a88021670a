"""Scalars of a run as TensorBoard files; an optional extra, imported only when it is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyface.base.errors import MissingExtraError, WriteError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_STEP_SCALARS = ("loss", "learning_rate", "images_per_second", "grad_norm")


class TensorBoardLog:
    """Writes the numbers of step and evaluation events; `first_step` hides superseded ones."""

    def __init__(self, directory: Path, *, first_step: int = 0) -> None:
        self._directory = directory
        with self._writing():
            self._writer = _summary_writer()(str(directory), purge_step=first_step)

    def write(self, event: dict[str, Any]) -> None:
        with self._writing():
            for tag, value in scalars_of(event).items():
                self._writer.add_scalar(tag, value, event["step"])

    def close(self) -> None:
        with self._writing():
            self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(self._directory, error) from error


def scalars_of(event: dict[str, Any]) -> dict[str, float]:
    """Tag -> value of one event; empty for kinds without numbers."""
    if event["kind"] == "step":
        found = {f"train/{name}": event.get(name) for name in _STEP_SCALARS}
    elif event["kind"] == "evaluation":
        found = {f"{event['set']}/{score['name']}": score["value"] for score in event["scores"]}
    else:
        found = {}
    return {tag: float(value) for tag, value in found.items() if value is not None}


def _summary_writer() -> "type[SummaryWriter]":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", extra="tensorboard") from error
    return SummaryWriter

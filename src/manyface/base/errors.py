"""The errors a user can meet. Each message says what was expected, what was found, what to do.

The command line prints `str(error)` in one line and exits with `exit_code`; a traceback there is
a defect of ours, so anything a user can cause is raised as one of these classes.
"""

from pathlib import Path


def one_line(error: BaseException) -> str:
    """An error of a library in a line: its kind, and the first line of what it says."""
    said = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {said}".removesuffix(": ")


class ManyfaceError(Exception):
    """Anything a user can cause or mend."""

    exit_code = 1


class ConfigError(ManyfaceError):
    """A recipe or an override that cannot be meant as it stands."""

    exit_code = 2


class DataError(ManyfaceError):
    """A data set, list or image that cannot be used."""


class CheckpointError(ManyfaceError):
    """A checkpoint that cannot be written, or must not be trusted."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose bytes are not those that were written."""


class WriteError(ManyfaceError):
    """A file that cannot be written: a full disk, a place that is forbidden or gone."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        number = "" if error.errno is None else f" (errno {error.errno})"
        super().__init__(
            f"cannot write {path}: {error.strerror or error}{number}; "
            "free space, or make the place writable"
        )


class NonFiniteError(ManyfaceError):
    """A NaN or an infinity in a quantity of training."""


class LabelError(ManyfaceError, ValueError):
    """A label that names no class."""


class PeerError(ManyfaceError):
    """A collective that failed on this rank: another one died, hangs, or is out of step.

    Attributes:
        collective: its name.
        is_explained: whether it is known who is at fault.
    """

    exit_code = 75  # EX_TEMPFAIL: begin again from the last checkpoint

    def __init__(self, collective: str, *, rank: int, size: int, error: Exception) -> None:
        self.collective, self.is_explained = collective, False
        self._cause = str(error).strip().partition("\n")[0].partition(" This is typically")[0]
        self._where = f"rank {rank} of {size} could not finish {collective!r}"
        super().__init__(
            f"{self._where}: another rank died, hangs or is out of step ({self._cause})"
        )

    def explain(self, suspects: str) -> None:
        """Say who it was, in words."""
        self.is_explained = True
        self.args = (f"{self._where}: {suspects} ({self._cause})",)


class PeerFailedError(ManyfaceError):
    """Another rank could not do what all were doing, and said why."""

    def __init__(self, rank: int, text: str) -> None:
        super().__init__(f"rank {rank}: {text}")


class ReplicaError(ManyfaceError):
    """A tensor that should be the same on all ranks, and is not."""

    exit_code = 75  # EX_TEMPFAIL: begin again from the last checkpoint

    def __init__(self, name: str, *, rank: int, size: int) -> None:
        self.name, self.rank = name, rank
        super().__init__(
            f"rank {rank} of {size} has another {name} than the other ranks: a step that was not "
            "the same everywhere, or faulty memory; go on from the last checkpoint"
        )


def to_install(extra: str) -> str:
    """What to run for an optional part; no package of this name is published."""
    return f"pip install '.[{extra}]' in manyface's folder"


class MissingExtraError(ManyfaceError):
    """An optional package is needed and absent."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: {to_install(extra)}")

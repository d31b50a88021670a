"""The record of a plan: bytes of one rank, seconds of one step, part by part."""

from dataclasses import asdict, dataclass
from typing import Any

from manyface.plan.saving import Saving
from manyface.plan.traffic import Collective

WORDS = {  # of parts whose names do not say enough
    "rows": "centers or features",
    "state": "their state",
    "process": "process and libraries",
    "exchange": "for other ranks",
    "building": "(while rows are drawn)",
    "files": "(in files)",
    "lists": "lists of near classes",
    "transfer": "rows from host and back",
    "exposed": "lost to the loader",
}


@dataclass(frozen=True)
class Line:
    """y = fixed + each * x: how a part grows with the images of a batch, or with active rows."""

    fixed: float
    each: float

    @staticmethod
    def through(one: tuple[float, float], other: tuple[float, float]) -> "Line":
        """The line through two points (x, y), never falling; flat where both have one x."""
        (x, y), (x2, y2) = one, other
        each = max(0.0, (y2 - y) / (x2 - x)) if x2 != x else 0.0
        return Line(max(0.0, y2 - each * x2), each)

    def at(self, x: float) -> float:
        """y."""
        return self.fixed + self.each * x


@dataclass(frozen=True)
class Bytes:
    """Of one rank, in one memory: of the device that computes, or of the host.

    Attributes:
        process: interpreter and libraries.
        backbone: weights, gradients, optimizer, gallery net, averaged net.
        rows: class centers, or features of the pool.
        state: what the optimizer keeps of the rows; lists of hard negatives; the pool's index.
        activations: of the backbone, its gradients' temporaries among them.
        head: logits a chunk at a time, kept numerators, copies of a chunk's rows.
        loader: batches made ahead.
        building: the most beyond rows and backbone while they are made, before the first step.
        files: in files and not in memory.
        exchange: DDP's buckets, what a step gathers of other ranks, the library's buffers.
    """

    process: int = 0
    backbone: int = 0
    rows: int = 0
    state: int = 0
    activations: int = 0
    head: int = 0
    loader: int = 0
    building: int = 0
    files: int = 0
    exchange: int = 0

    @property
    def stepping(self) -> int:
        """Beyond what is held: what a step needs."""
        return self.activations + self.head + self.loader

    @property
    def held(self) -> int:
        """From step to step."""
        return self.process + self.backbone + self.rows + self.state + self.exchange

    @property
    def peak(self) -> int:
        """The most at any time."""
        return self.held + max(self.building, self.stepping)

    def largest(self) -> tuple[str, int]:
        """The part of the peak that takes most, and its bytes."""
        parts = {name: size for name, size in vars(self).items() if name != "files"}
        name = max(parts, key=parts.__getitem__)
        return WORDS.get(name, name), parts[name]


@dataclass(frozen=True)
class Seconds:
    """Of one update, which is a step of as many batches as the recipe accumulates.

    Attributes:
        backbone: forward, backward, its optimizer; in F2C the gallery net too.
        head: forward, backward, update of the rows.
        loader: of one core, to make a batch; None: not known, the data are not here.
        exposed: what of it the step waits for, or loses to it on shared cores.
        communication: of ranks, as far as no arithmetic hides it.
        lists: to find the nearest classes anew of those whose turn it is, for hard negatives.
        transfer: of rows that lie in host memory or files to a GPU, and back.
    """

    backbone: float
    head: float
    loader: float | None
    exposed: float
    communication: float = 0.0
    lists: float = 0.0
    transfer: float = 0.0

    @property
    def step(self) -> float:
        """Altogether."""
        beside = self.exposed + self.communication + self.transfer
        return self.backbone + self.head + self.lists + beside


@dataclass(frozen=True)
class Prediction:
    """What a recipe will take.

    Attributes:
        method: head.method.
        identities: number of classes.
        active: classes that a step scores on one rank.
        batch_size: images of all ranks.
        ranks: that share the rows.
        bytes: of one rank, on the device that computes.
        seconds: of one step.
        available: bytes there are.
        where: what was measured, or whose data sheet it is.
        steps: of the whole run; None: not known.
        head_of_all: seconds of the head if all classes took part; None where that is the recipe.
        accumulation: batches of an update.
        collectives: of an update of several ranks.
        saving: a checkpoint of several ranks; None: not planned.
        assumptions: sentences, of what was not measured.
        disk: free bytes where files would lie; None: there are none, or it is not known.
        host: of one rank, in host memory; None where that is the device's.
        host_available: bytes there are; None: not known.
    """

    method: str
    identities: int
    active: int
    batch_size: int
    ranks: int
    bytes: Bytes
    seconds: Seconds
    available: int
    where: str
    steps: int | None
    head_of_all: float | None
    accumulation: int = 1
    collectives: tuple[Collective, ...] = ()
    saving: Saving | None = None
    assumptions: tuple[str, ...] = ()
    disk: int | None = None
    host: Bytes | None = None
    host_available: int | None = None

    @property
    def fits(self) -> bool:
        """Whether there is room, in each memory and on the disk."""
        return self.bytes.peak <= self.available and self.fits_host and self.fits_disk

    @property
    def fits_host(self) -> bool:
        """Whether the host has room, as far as is known."""
        if self.host is None or self.host_available is None:
            return True
        return self.host.peak <= self.host_available

    @property
    def fits_disk(self) -> bool:
        """Whether the disk has room for the files, as far as is known."""
        return self.disk is None or self.bytes.files <= self.disk

    @property
    def images_per_second(self) -> float:
        """Distinct training images of all ranks."""
        return self.accumulation * self.batch_size / self.seconds.step

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "fits": self.fits,
            "peak_bytes": self.bytes.peak,
            "host_peak_bytes": None if self.host is None else self.host.peak,
            "step_seconds": self.seconds.step,
            "images_per_second": self.images_per_second,
            "rows_of_rank": -(-self.identities // self.ranks),
        }

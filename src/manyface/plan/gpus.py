"""GPUs by their data sheets, and what no data sheet of theirs says of the machines around them."""

from dataclasses import dataclass

from manyface.base.errors import ConfigError

_GB, _TERA = 10**9, 10**12


@dataclass(frozen=True)
class Gpu:
    """Data sheet: bytes of memory, operations a second in bf16 and fp32, bytes a second.

    `host` is no data sheet's: GiB of host memory for each GPU in machines that are sold with it.
    """

    memory: int
    bf16: float
    fp32: float
    bandwidth: float
    link: float  # to one other GPU of the same machine, one way
    pcie: float  # to host memory, one way
    host: float


GPUS = {
    "v100": Gpu(32 * _GB, 112 * _TERA, 14 * _TERA, 0.9e12, 150e9, 16e9, 60),
    "a100": Gpu(80 * _GB, 312 * _TERA, 19.5 * _TERA, 2.0e12, 300e9, 32e9, 128),
    "h100": Gpu(80 * _GB, 989 * _TERA, 67 * _TERA, 3.35e12, 450e9, 64e9, 250),
    "h200": Gpu(141 * _GB, 989 * _TERA, 67 * _TERA, 4.8e12, 450e9, 64e9, 250),
    "l40s": Gpu(48 * _GB, 362 * _TERA, 91.6 * _TERA, 0.864e12, 32e9, 32e9, 128),
    "rtx4090": Gpu(24 * _GB, 165 * _TERA, 82.6 * _TERA, 1.0e12, 32e9, 32e9, 64),
}


@dataclass(frozen=True)
class Cluster:
    """GPUs of one kind in machines of up to eight, as many in each as can be.

    Attributes:
        gpu: a name in `GPUS`.
        gpus: of all machines.
        network_gbit: Gbit/s from one GPU to other machines, one way.
        host_gib: GiB of host memory for each GPU; None: as `Gpu.host` says.
        disk_gb: 10^9 bytes a second that one machine writes where checkpoints lie.
    """

    gpu: str
    gpus: int
    network_gbit: float = 400.0
    host_gib: float | None = None
    disk_gb: float = 1.0

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise ConfigError(f"no data sheet of GPU {self.gpu!r}; there are: {', '.join(GPUS)}")
        if not 1 <= self.gpus <= MOST_GPUS:
            raise ConfigError(f"expected --gpus from 1 to {MOST_GPUS:,}, got {self.gpus}")
        for option in ("network_gbit", "host_gib", "disk_gb"):
            value = getattr(self, option)
            if value is not None and not 0 < value < float("inf"):
                name = option.replace("_", "-")
                raise ConfigError(f"expected --{name} above 0, got {value:g}")

    @property
    def sheet(self) -> Gpu:
        """Of the kind of GPU."""
        return GPUS[self.gpu]

    @property
    def machines(self) -> int:
        """How many there are."""
        return -(-self.gpus // MACHINE)

    @property
    def gpus_of_a_machine(self) -> int:
        """In the fullest one; GPUs are spread evenly."""
        return -(-self.gpus // self.machines)

    @property
    def ring_bandwidth(self) -> float:
        """Bytes a second around a ring of all GPUs: the links', or all the network of a machine.

        A library lays a ring for each network card, so that a machine's cards work together.
        """
        if self.machines == 1:
            return self.sheet.link
        fewest = self.gpus // self.machines
        return min(self.sheet.link, fewest * self.network_gbit * 1e9 / 8)

    @property
    def host_memory(self) -> int:
        """Bytes for each GPU."""
        return int((self.sheet.host if self.host_gib is None else self.host_gib) * 2**30)


MACHINE = 8  # GPUs that one holds
MOST_GPUS = 65_536

"""Named random streams: every draw comes from (seed, name ...), never from global state.

Two kinds. A *generator* is a sequential stream for places that draw once (initial weights). A
*hash* is a pure function of a counter for places where sample k must get the same draw whatever its
batch, worker or rank (augmentation, synthetic faces): the position is the state.
"""

import hashlib

import numpy as np
import numpy.typing as npt
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def stream_seed(seed: int, *names: str | int) -> int:
    """A 64-bit seed for the stream `names` under `seed`; different names give unrelated streams."""
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator at the start of the stream `names`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator (Philox, counter-based) at the start of the stream `names`."""
    return np.random.Generator(np.random.Philox(key=stream_seed(seed, *names)))


def mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): a bijection of uint64 with full avalanche."""
    values = (values ^ (values >> np.uint64(30))) * MIX_1
    values = (values ^ (values >> np.uint64(27))) * MIX_2
    return values ^ (values >> np.uint64(31))


def hash_uint64(
    seed: int, counters: npt.NDArray[np.integer], *, lane: int = 0
) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of (seed, lane, counter) for each counter, any shape."""
    key = np.uint64(stream_seed(seed, "hash", lane))
    # numpy warns of overflow for scalars only; arrays wrap silently, which is what is meant here.
    return mix64(mix64(np.asarray(counters).astype(np.uint64) * _GOLDEN + key) + key)


def hash_uniform(
    seed: int, counters: npt.NDArray[np.integer], *, lane: int = 0
) -> npt.NDArray[np.float32]:
    """Uniform float32 in [0, 1), a function of (seed, lane, counter); lanes are independent."""
    top24 = hash_uint64(seed, np.atleast_1d(counters), lane=lane) >> np.uint64(40)
    return (top24.astype(np.float32) * np.float32(2.0**-24)).reshape(np.shape(counters))

"""A stable name of what a model computes: equal weights, fed alike, have the same one.

So the embeddings of a run and of a bundle that was made of it are known to be comparable, whatever
the files are called. It is a hash (xxh3, 128 bits): it tells models apart, it proves no origin.
"""

import json
from collections.abc import Mapping

import xxhash
from torch import Tensor

from manyface.checkpoint.stream import dtype_name, raw_bytes
from manyface.model.preprocessing import Preprocessing

# Batches counted in training take no part in an embedding, and are not in all files.
_NOT_COMPUTED_WITH = ".num_batches_tracked"


def hash_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and values; 32 hexadecimal digits."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        if not name.endswith(_NOT_COMPUTED_WITH):
            tensor = tensors[name]
            digest.update(f"{name} {dtype_name(name, tensor)} {list(tensor.shape)}\n".encode())
            for part in raw_bytes(tensor):
                digest.update(part)
    return digest.hexdigest()


def fingerprint_of(weights: str, preprocessing: Preprocessing) -> str:
    """Of a net whose weights have the hash `weights`, and how it is fed."""
    text = json.dumps([weights, preprocessing.to_json()], sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode())

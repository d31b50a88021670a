"""The data room: image sources, epoch sampling, batch augmentation, prefetching.

An *image source* (source.py) answers "labels of these records" and "pixels of these records"; the
sampler turns positions into records; transforms turn pixels into network input; the loader runs the
three ahead of training. Record and augmentation of a sample are pure functions of (seed, position),
so the data part of a checkpoint is one integer: the step.
"""

from manyface.data.bin_file import (
    BinRecords,
    VerificationSet,
    find_bin,
    first_places,
    read_bin,
    write_bin,
)
from manyface.data.dual import DualBatch, DualLoader
from manyface.data.images import DecodedImages
from manyface.data.lists import PairList, read_pairs, read_people
from manyface.data.loader import Batch, Loader
from manyface.data.mixture import Mixture, MixtureSampler, Shares
from manyface.data.noise import NoisyLabels
from manyface.data.records import Records, find_text, open_records, select_kept, select_records
from manyface.data.samplers import BlockSampler, EpochSampler, MakeSampler
from manyface.data.source import GroupedSource, ImageSource
from manyface.data.transforms import Augmentation, augment, normalise

__all__ = [
    "Augmentation",
    "Batch",
    "BinRecords",
    "BlockSampler",
    "DecodedImages",
    "DualBatch",
    "DualLoader",
    "EpochSampler",
    "GroupedSource",
    "ImageSource",
    "Loader",
    "MakeSampler",
    "Mixture",
    "MixtureSampler",
    "NoisyLabels",
    "PairList",
    "Records",
    "VerificationSet",
    "Shares",
    "augment",
    "find_bin",
    "first_places",
    "find_text",
    "normalise",
    "open_records",
    "read_bin",
    "read_pairs",
    "read_people",
    "select_kept",
    "select_records",
    "write_bin",
]

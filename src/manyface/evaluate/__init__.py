"""Verification: embeddings of pairs, metrics with intervals, baselines, overlap of people."""

from manyface.evaluate.baselines import WhitenedPixels, fit_whitened_pixels
from manyface.evaluate.bootstrap import Difference, Resampler, accuracy_difference
from manyface.evaluate.embed import EmbedFunction, embed_source, make_embed_function
from manyface.evaluate.files import write_evaluation
from manyface.evaluate.overlap import identity_overlap, overlap_warning
from manyface.evaluate.pairs import PairSet, bin_pairs, lfw_pairs, synthetic_pairs
from manyface.evaluate.result import Curve, ProtocolResult, Score
from manyface.evaluate.verification import Evaluation, PairEvaluator

__all__ = [
    "Curve",
    "Difference",
    "EmbedFunction",
    "Evaluation",
    "PairEvaluator",
    "PairSet",
    "ProtocolResult",
    "Resampler",
    "Score",
    "WhitenedPixels",
    "accuracy_difference",
    "bin_pairs",
    "embed_source",
    "fit_whitened_pixels",
    "identity_overlap",
    "lfw_pairs",
    "make_embed_function",
    "overlap_warning",
    "synthetic_pairs",
    "write_evaluation",
]

"""Verification and search: protocols of the field, metrics with intervals, baselines, overlap."""

from manyface.evaluate.all_pairs import all_pairs_result, scan_all_pairs
from manyface.evaluate.baselines import WhitenedPixels, fit_whitened_pixels
from manyface.evaluate.bootstrap import Difference, Resampler, accuracy_difference, accuracy_weights
from manyface.evaluate.embed import EmbedFunction, embed_source, make_embed_function
from manyface.evaluate.files import write_evaluation
from manyface.evaluate.identification import identification_result, megaface_result
from manyface.evaluate.ijb_files import read_faces, read_galleries, read_template_pairs
from manyface.evaluate.ijb_identify import identify_templates
from manyface.evaluate.ijb_verify import verify_templates
from manyface.evaluate.overlap import identity_overlap, overlap_warning
from manyface.evaluate.pairs import PairSet, bin_pairs, lfw_pairs, synthetic_pairs
from manyface.evaluate.parts import DecidedPairs, by_group, by_quality
from manyface.evaluate.result import Curve, ProtocolResult, Score
from manyface.evaluate.templates import Variant, pool_templates
from manyface.evaluate.tinyface import read_tinyface
from manyface.evaluate.verification import Evaluation, PairEvaluator

__all__ = [
    "Curve",
    "DecidedPairs",
    "Difference",
    "EmbedFunction",
    "Evaluation",
    "PairEvaluator",
    "PairSet",
    "ProtocolResult",
    "Resampler",
    "Score",
    "Variant",
    "WhitenedPixels",
    "accuracy_difference",
    "accuracy_weights",
    "all_pairs_result",
    "bin_pairs",
    "by_group",
    "by_quality",
    "embed_source",
    "fit_whitened_pixels",
    "identification_result",
    "identify_templates",
    "identity_overlap",
    "lfw_pairs",
    "make_embed_function",
    "megaface_result",
    "overlap_warning",
    "pool_templates",
    "read_faces",
    "read_galleries",
    "read_template_pairs",
    "read_tinyface",
    "scan_all_pairs",
    "synthetic_pairs",
    "verify_templates",
    "write_evaluation",
]

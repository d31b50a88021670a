"""Margin softmax over active rows: `dense` is the oracle, `streamed` the one that heads use."""

from manyface.softmax.dense import dense_margin_softmax
from manyface.softmax.function import streamed_margin_softmax

__all__ = ["dense_margin_softmax", "streamed_margin_softmax"]

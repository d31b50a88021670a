"""Triton kernels: what they compute has a plain twin in torch, which is what runs elsewhere.

Only `choose` is imported here; the other files need triton and a GPU, or TRITON_INTERPRET=1.
"""

from manyface.kernels.select import Choice, choose

__all__ = ["Choice", "choose"]

"""Slow, obvious re-statements of published semantics, which the fast code is compared with."""

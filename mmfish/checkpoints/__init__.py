"""Weights that others trained."""

from mmfish.checkpoints.official import from_official

__all__ = ['from_official']

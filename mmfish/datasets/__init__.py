"""Data sets of one's own and MMDetection's: where they lie, whether they can be used, loading."""

import mmfish.whole_stack  # noqa: F401
from mmfish.datasets.fashion_mnist import FashionMNIST
from mmfish.datasets.transforms import LoadAnnotations, LoadImageFromFile, Resize

__all__ = ['FashionMNIST', 'LoadAnnotations', 'LoadImageFromFile', 'Resize']

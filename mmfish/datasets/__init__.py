"""Data that can be made or found without a download."""

from mmfish.datasets.coco import ShapesDataset
from mmfish.datasets.digits import Digits
from mmfish.datasets.shapes import CLASSES, PALETTE, make_shapes
from mmfish.datasets.transforms import LoadAnnotations, LoadImageFromFile

__all__ = [
    'CLASSES',
    'PALETTE',
    'Digits',
    'LoadAnnotations',
    'LoadImageFromFile',
    'ShapesDataset',
    'make_shapes',
]

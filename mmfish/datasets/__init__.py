"""Data that can be made without a download."""

from mmfish.datasets.coco import ShapesDataset
from mmfish.datasets.shapes import CLASSES, PALETTE, make_shapes

__all__ = ['CLASSES', 'PALETTE', 'ShapesDataset', 'make_shapes']

"""Data that can be made without a download."""

from importlib.util import find_spec

from mmfish.datasets.shapes import CLASSES, PALETTE, make_shapes

__all__ = ['CLASSES', 'PALETTE', 'make_shapes']

# Those who only classify need no MMDetection.
if find_spec('mmdet'):
    from mmfish.datasets.coco import ShapesDataset

    __all__ += ['ShapesDataset']

"""The shapes data set for MMDetection's configs."""

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

from mmfish.datasets.shapes import CLASSES, PALETTE
from mmfish.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """MMDetection's ``CocoDataset`` with the classes of `mmfish.datasets.make_shapes`."""

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=CLASSES, palette=PALETTE)

# The same RetinaNet with MMDetection's own ResNet: nothing of mmfish's is in it.
from mmengine.config import read_base

with read_base():
    from .retinanet_fishnet import *  # noqa: F403

from mmdet.models import ResNet

model.update(  # noqa: F405
    backbone=dict(
        _delete_=True, type=ResNet, depth=18, base_channels=8, out_indices=(0, 1, 2), init_cfg=None
    ),
    neck=dict(in_channels=[8, 16, 32]),
)

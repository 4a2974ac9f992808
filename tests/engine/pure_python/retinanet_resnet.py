# The same RetinaNet with MMDetection's own ResNet, without any part of mmfish.
from mmengine.config import read_base

with read_base():
    from .retinanet_fishnet import *  # noqa: F403

from mmdet.models import ResNet

model.backbone = dict(type=ResNet, depth=18, base_channels=8, out_indices=(0, 1, 2))  # noqa: F405
model.neck.in_channels = [8, 16, 32]  # noqa: F405

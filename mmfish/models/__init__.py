"""The network, its table of architectures and its classifier head."""

from mmfish.models.archs import ARCHS
from mmfish.models.cls_head import FishNetClsHead
from mmfish.models.fishnet import FishNet
from mmfish.models.norm import FrozenBN

__all__ = ['ARCHS', 'FishNet', 'FishNetClsHead', 'FrozenBN']

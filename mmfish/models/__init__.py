"""The network, its table of architectures, its classifier head and its necks."""

import mmfish.whole_stack  # noqa: F401
from mmfish.models.archs import ARCHS
from mmfish.models.cls_head import FishNetClsHead
from mmfish.models.fishnet import FishNet
from mmfish.models.necks import FishFPN, FishHeadAdapter
from mmfish.models.norm import FrozenBN

__all__ = ['ARCHS', 'FishFPN', 'FishHeadAdapter', 'FishNet', 'FishNetClsHead', 'FrozenBN']

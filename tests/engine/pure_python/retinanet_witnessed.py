# The RetinaNet with FishNet, and a hook that writes down the memory format of what it sees.
from mmengine.config import read_base

with read_base():
    from .retinanet_fishnet import *  # noqa: F403

from memory_format import MemoryFormatWitness

custom_hooks = [dict(type=MemoryFormatWitness)]

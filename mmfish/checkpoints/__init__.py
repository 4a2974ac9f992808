"""Weights to start from. A run's own checkpoints: `mmfish.engine.fault_tolerance.saving`."""

import mmfish.whole_stack  # noqa: F401
from mmfish.checkpoints.convert import (
    convert_checkpoint,
    from_official,
    from_pytorchcv,
    to_official,
)
from mmfish.checkpoints.loading import load_backbone, load_backbone_state

__all__ = [
    'convert_checkpoint',
    'from_official',
    'from_pytorchcv',
    'load_backbone',
    'load_backbone_state',
    'to_official',
]

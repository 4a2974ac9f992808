"""Training and testing: hooks and runners, the steps of a run, and fault tolerance.

Not imported with it are the metrics and the records of runs, because they take MMDetection's and
MMPretrain's own, which take seconds to import and print notices.
"""

import mmfish.whole_stack  # noqa: F401
from mmfish.engine.fault_tolerance.resuming import (
    AverageStatisticsHook,
    ResumableTrainLoop,
    ResumeHook,
)
from mmfish.engine.fault_tolerance.saving import AtomicCheckpointHook
from mmfish.engine.fault_tolerance.stopping import StopHook
from mmfish.engine.hooks import CheckWeightsHook, FuseHook, StopGradClipHook
from mmfish.engine.runners import ChannelsLastRunner

__all__ = [
    'AtomicCheckpointHook',
    'AverageStatisticsHook',
    'ChannelsLastRunner',
    'CheckWeightsHook',
    'FuseHook',
    'ResumableTrainLoop',
    'ResumeHook',
    'StopGradClipHook',
    'StopHook',
]

"""Training and testing: hooks and runners, the steps of a run, and fault tolerance."""

import mmfish.whole_stack  # noqa: F401
from mmfish.engine.fault_tolerance.resuming import (
    AverageStatisticsHook,
    ResumableTrainLoop,
    ResumeHook,
)
from mmfish.engine.fault_tolerance.saving import AtomicCheckpointHook
from mmfish.engine.fault_tolerance.stopping import StopHook
from mmfish.engine.hooks import CheckWeightsHook, FuseHook, StopGradClipHook
from mmfish.engine.metrics import BoxAreaCocoMetric
from mmfish.engine.records import RecordHook
from mmfish.engine.runners import ChannelsLastRunner

__all__ = [
    'AtomicCheckpointHook',
    'AverageStatisticsHook',
    'BoxAreaCocoMetric',
    'ChannelsLastRunner',
    'CheckWeightsHook',
    'FuseHook',
    'RecordHook',
    'ResumableTrainLoop',
    'ResumeHook',
    'StopGradClipHook',
    'StopHook',
]

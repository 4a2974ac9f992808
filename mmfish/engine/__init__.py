"""Hooks, how a run is started, and how it survives."""

from mmfish.engine.fault_tolerance.resuming import (
    AverageStatisticsHook,
    ResumableTrainLoop,
    ResumeHook,
)
from mmfish.engine.fault_tolerance.saving import AtomicCheckpointHook
from mmfish.engine.fault_tolerance.stopping import StopHook
from mmfish.engine.hooks import ChannelsLastHook, CPUThreadsHook, FuseHook, StopGradClipHook

__all__ = [
    'AtomicCheckpointHook',
    'AverageStatisticsHook',
    'CPUThreadsHook',
    'ChannelsLastHook',
    'FuseHook',
    'ResumableTrainLoop',
    'ResumeHook',
    'StopGradClipHook',
    'StopHook',
]

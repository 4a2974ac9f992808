"""Hooks, how a run is started, and how it survives."""

from mmfish.engine.hooks import ChannelsLastHook, CPUThreadsHook, FuseHook, StopGradClipHook
from mmfish.engine.resuming import AverageStatisticsHook, ResumableTrainLoop, ResumeHook
from mmfish.engine.saving import WholeCheckpointHook
from mmfish.engine.stopping import StopHook

__all__ = [
    'AverageStatisticsHook',
    'CPUThreadsHook',
    'ChannelsLastHook',
    'FuseHook',
    'ResumableTrainLoop',
    'ResumeHook',
    'StopGradClipHook',
    'StopHook',
    'WholeCheckpointHook',
]

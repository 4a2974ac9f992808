"""Hooks, and how a run is started."""

from mmfish.engine.hooks import ChannelsLastHook, CPUThreadsHook, FuseHook, StopGradClipHook

__all__ = ['CPUThreadsHook', 'ChannelsLastHook', 'FuseHook', 'StopGradClipHook']

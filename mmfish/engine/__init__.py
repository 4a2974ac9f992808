"""Hooks, and how a run is started."""

from mmfish.engine.hooks import CPUThreadsHook, StopGradClipHook

__all__ = ['CPUThreadsHook', 'StopGradClipHook']

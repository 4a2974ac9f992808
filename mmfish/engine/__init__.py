"""Hooks, and how a run is started."""

from mmfish.engine.hooks import ChannelsLastHook, FuseHook, StopGradClipHook

__all__ = ['ChannelsLastHook', 'FuseHook', 'StopGradClipHook']

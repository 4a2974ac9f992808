"""Hooks, and how a run is started."""

from mmfish.engine.hooks import StopGradClipHook

__all__ = ['StopGradClipHook']

"""Atomic checkpoints, exact resuming, and stopping in order."""

"""Atomic checkpoints, exact resuming, and runs that stop with their state saved."""

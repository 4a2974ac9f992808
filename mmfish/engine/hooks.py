"""Hooks that our configs need and MMEngine does not have."""

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfish.registry import HOOKS


@HOOKS.register_module()
class StopGradClipHook(Hook):
    """End gradient clipping after some epochs.

    The gradients of FishNet's first epochs are huge and are clipped; later ones are not
    (section 4.4 of the paper). Until then ``optim_wrapper.clip_grad`` applies as configured.

    Args:
        epoch: number of epochs with clipping.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_train_epoch(self, runner: Runner) -> None:
        """Switch clipping off, in a resumed run too."""
        wrapper = runner.optim_wrapper
        if runner.epoch >= self.epoch and wrapper.clip_grad_kwargs:
            wrapper.clip_grad_kwargs = None
            runner.logger.info(f'Gradient clipping ends after {self.epoch} epochs.')


@HOOKS.register_module()
class CPUThreadsHook(Hook):
    """Limit the threads that PyTorch computes with while a run lasts.

    Small networks gain little from more threads, and lose much where cores are busy: each operation
    waits for the last of its threads.

    Args:
        threads: number of threads of an operation on the CPU.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def before_run(self, runner: Runner) -> None:
        """Set the limit."""
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def after_run(self, runner: Runner) -> None:
        """Leave the process as it was."""
        torch.set_num_threads(self.before)

"""Hooks that the paper's recipe needs and MMEngine does not have."""

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

"""Hooks that MMEngine does not have: for the paper's recipe, and for speed."""

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmfish.checkpoints.loading import check_fit, check_numbers, state_dict_in
from mmfish.models.fusion import fuse
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


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the whole model's features with the channels innermost (NHWC in memory).

    The weights are laid out that way, and a convolution's output is laid out as its weights are:
    from the first convolution on, nothing has to be told about it. The numbers stay.
    """

    def before_run(self, runner: Runner) -> None:
        """Lay out the weights; loading a checkpoint later does not change that."""
        runner.model.to(memory_format=torch.channels_last)


@HOOKS.register_module()
class FuseHook(Hook):
    """Test a copy of the model in which normalisation is part of the convolutions (`mmfish.fuse`).

    For testing alone: validation within a training goes by the plain model.
    """

    priority = 'LOWEST'  # after an EMAHook has put its weights into the model

    def before_test_epoch(self, runner: Runner) -> None:
        """Put the copy in the model's place."""
        self.plain = runner.model
        if is_model_wrapper(self.plain):
            # What a wrapper adds concerns gradients.
            runner.model = fuse(self.plain.module)
        else:
            runner.model = fuse(self.plain)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the model back."""
        runner.model = self.plain


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Stop a run whose weights do not belong to its model, before anything is loaded.

    MMEngine loads what fits from a checkpoint and goes on. To start a training from a detector
    with another number of classes is a custom, so then only the backbone must fit.

    Args:
        whole: the whole model must fit, as it must to be tested or resumed.
    """

    priority = 'HIGHEST'  # before an EMAHook takes the weights over

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at weights that were read.

        Raises:
            CheckpointError: they do not fit, or are no numbers.
        """
        source = str(runner._load_from or 'the checkpoint')
        state_dict = {
            key.removeprefix('module.'): tensor
            for key, tensor in state_dict_in(checkpoint, source).items()
        }
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.whole:
            check_fit(model, state_dict, source, 'the model of the config')
        elif hasattr(model, 'backbone'):
            prefix = 'backbone.'
            backbone = {
                key.removeprefix(prefix): tensor
                for key, tensor in state_dict.items()
                if key.startswith(prefix)
            }
            check_fit(model.backbone, backbone, source, "the config's backbone")
            check_numbers(state_dict, source)
        else:
            check_numbers(state_dict, source)

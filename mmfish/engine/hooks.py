"""Hooks for the paper's recipe, for fast testing, and for weights that have to fit."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from mmfish.checkpoints.loading import check_fit, check_numbers, state_dict_in, without_module
from mmfish.models import FishNet
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
        """Switch clipping off when its epochs are over, in a resumed run too."""
        wrapper = runner.optim_wrapper
        if runner.epoch >= self.epoch and wrapper.clip_grad_kwargs:
            wrapper.clip_grad_kwargs = None
            runner.logger.info(f'Gradient clipping ends after {self.epoch} epochs.')


@HOOKS.register_module()
class FuseHook(Hook):
    """Test a copy of the model with normalisation folded into its convolutions (`mmfish.fuse`).

    Validation within a training uses the model itself.
    """

    priority = 'LOWEST'  # after an EMAHook has put its weights into the model

    def before_test_epoch(self, runner: Runner) -> None:
        """Replace the model by its copy."""
        self.plain = runner.model
        # The wrapper of distributed training is not needed: it is there for gradients.
        runner.model = fuse(self.plain.module if is_model_wrapper(self.plain) else self.plain)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the model back."""
        runner.model = self.plain


@HOOKS.register_module()
class CheckWeightsHook(Hook):
    """Stop a run before it loads a checkpoint into a model with FishNet that does not fit it.

    MMEngine loads whatever fits, and warns of the rest. That stays so for models without FishNet,
    and for the other parts of a detector that a training starts from: those of a detector for
    another number of classes do not fit, and are trained anew.

    Args:
        whole: True if the whole model must fit, as for testing and resuming; False if FishNet must.
    """

    priority = 'HIGHEST'  # before an EMAHook takes the weights over

    def __init__(self, whole: bool) -> None:
        self.whole = whole

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the weights that were read.

        Args:
            runner: with the model.
            checkpoint: as it was read; none of it is in the model yet.

        Raises:
            CheckpointError: they do not fit, or have NaN or Inf in them.
        """
        model = runner.model
        # As MMEngine does when it loads.
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        if self.whole:
            _check_class_order(runner, checkpoint)
        fishnets = {name: m for name, m in model.named_modules() if isinstance(m, FishNet)}
        if not fishnets:
            return
        source = str(runner.cfg.get('load_from') or 'the checkpoint')
        state_dict = without_module(state_dict_in(checkpoint, source))
        if self.whole:
            check_fit(model, state_dict, source, 'the model of the config')
        else:
            for name, fishnet in fishnets.items():
                check_fit(fishnet, _weights_of(name, state_dict), source, "the config's backbone")
        check_numbers(state_dict, source)


def _check_class_order(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Warn where a checkpoint has learned the classes of the data set in another order.

    The shapes fit, and every object would get another class's name.
    """
    learned = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes') or ()
    loop = runner.train_loop or runner.test_loop
    dataset = loop.dataloader.dataset if loop else None
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    if list(learned) != list(classes) and sorted(learned) == sorted(classes):
        print_log(
            f'The checkpoint has learned the classes {", ".join(learned)} in this order, and the '
            f'data set has {", ".join(classes)}, so that names are wrong and AP is low: give '
            'metainfo of the data set, or the categories of its annotations, the order of the '
            'checkpoint',
            'current',
            logging.WARNING,
        )


def _weights_of(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a module by its dotted name, such as ``backbone`` or ``student.backbone``.

    Semi-supervised detectors take the weights of a single detector for both teacher and student: if
    there are none for ``student.backbone``, they are those of ``backbone``.
    """
    parts = name.split('.') if name else []
    for start in range(len(parts)):
        prefix = '.'.join([*parts[start:], ''])
        found = {k.removeprefix(prefix): t for k, t in state_dict.items() if k.startswith(prefix)}
        if found:
            return found
    return {} if parts else dict(state_dict)

"""What `mmfish check` tries: the compiled ops of MMCV, and the model of a config."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from mmcv.ops import nms
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import set_random_seed
from torch import nn

from mmfish.engine.inputs import model_inputs, remove_checkpoints
from mmfish.errors import UsageError
from mmfish.registry import type_name
from mmfish.stack import compile_ops

# What a data set of MMPretrain's hands to the pipeline: long enough for every crop in use.
PICTURE_SIDE = 256


class Trial(NamedTuple):
    """What came out of `try_model`.

    Attributes:
        parameters: of the model, frozen ones included.
        loss: the sum of the losses of the first training step.
    """

    parameters: int
    loss: float


def try_ops(device: str) -> None:
    """Run one of MMCV's compiled ops.

    Args:
        device: 'cpu' or 'cuda'.

    Raises:
        UsageError: it does not run; says what to do.
    """
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]], device=device)
    try:
        nms(boxes, torch.ones(2, device=device), 0.5)
    except RuntimeError as error:
        reason = str(error).partition('\n')[0]
        raise UsageError(
            f'the compiled ops of mmcv do not run on {device} ({reason}), most likely because they '
            f'were compiled for other devices: {compile_ops()}'
        ) from error


def try_model(cfg: Config, size: int = 128, device: str = 'cpu') -> Trial:
    """Build a config's model with random weights, predict, and train it for one step.

    The images are made up. The step is the model's own, with the config's data preprocessor and
    optimiser wrapper.

    Args:
        cfg: of MMDetection or MMPretrain, as ``default_scope`` says; not changed.
        size: side in pixels of the images for detectors. Classifiers get images of the size that
            their training pipeline makes.
        device: where the model is: 'cpu', 'cuda', ...

    Returns:
        The number of parameters, and the loss.

    Raises:
        UsageError: the config is of another package, or the loss is not a finite number.
    """
    scope = cfg.get('default_scope') or 'mmdet'  # MMDetection's pure-Python configs have none
    if scope not in ('mmdet', 'mmpretrain'):
        raise UsageError(f'default_scope must be one of mmdet, mmpretrain, got {scope!r}')
    with DefaultScope.overwrite_default_scope(scope):
        model = random_model(cfg)
        model.to(device)
        model.eval()
        with torch.no_grad():
            model.test_step(_inputs(cfg, scope, size, training=False))
        model.train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        losses = model.train_step(_inputs(cfg, scope, size, training=True), optim_wrapper)
    loss = losses['loss'].item()
    if not math.isfinite(loss):
        raise UsageError(f'the loss of the first step is {loss}: {losses}')
    return Trial(sum(p.numel() for p in model.parameters()), loss)


def random_model(cfg: Config) -> nn.Module:
    """Build a config's model with random weights, the same every time.

    Args:
        cfg: with MMEngine's default scope set to that of the model; not changed.
    """
    cfg = Config(cfg.to_dict())
    remove_checkpoints(cfg.model)
    if 'data_preprocessor' in cfg:
        # Where MMPretrain's configs have it; MMEngine's runner moves it into the model.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    set_random_seed(0)
    # Where the runner writes how far a training is, which some losses ask for.
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0, max_iters=1))
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def _inputs(cfg: Config, scope: str, size: int, *, training: bool) -> dict[str, Any]:
    if scope == 'mmpretrain':
        return _classification_inputs(cfg)
    return model_inputs(cfg.model, size, images=2 if training else 1, training=training)


def _classification_inputs(cfg: Config) -> dict[str, Any]:
    channels = cfg.model.backbone.get('in_channels', 3)
    transforms = cfg.train_dataloader.dataset.pipeline
    pipeline = Compose([step for step in transforms if not type_name(step).startswith('Load')])
    shape = (PICTURE_SIDE, PICTURE_SIDE)
    rng = np.random.default_rng(0)
    # Two images, because BatchNorm cannot normalise one value.
    return pseudo_collate(
        [
            pipeline(
                dict(
                    img=rng.integers(256, size=(*shape, channels), dtype=np.uint8).squeeze(),
                    img_shape=shape,
                    ori_shape=shape,
                    gt_label=label,
                )
            )
            for label in range(2)
        ]
    )

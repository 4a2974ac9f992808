"""Whether configs work: each model is built and trained for one step, without data or downloads."""

import math
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import set_random_seed

from benchmarks.complexity import parameter_count
from benchmarks.inputs import model_inputs, remove_checkpoints
from mmfish.errors import UsageError

# What a data set of MMPretrain's hands to the pipeline: long enough for every crop in use.
PICTURE_SIDE = 256


def experiments(folder: Path) -> list[Path]:
    """The configs in a folder that are experiments: all but those in ``_base_`` folders."""
    files = folder.rglob('*.py')
    return sorted(file for file in files if '_base_' not in file.relative_to(folder).parts)


def check_configs(paths: Sequence[Path], size: int = 128) -> None:
    """Check configs one after the other, and print a line about each.

    Args:
        paths: of the configs.
        size: as for `check_config`.

    Raises:
        UsageError: at least one failed; says how many.
    """
    # Of every parameter MMEngine logs how it was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    failed = 0
    names = [os.path.relpath(path) for path in paths]
    width = max(map(len, names))
    for name, path in zip(names, paths, strict=True):
        try:
            parameters, loss = check_config(Config.fromfile(path), size)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            print(f'{name:<{width}}  FAILED: {type(error).__name__}: {error}', flush=True)
        else:
            print(f'{name:<{width}}  {parameters:>11,} parameters  loss {loss:.5g}', flush=True)
    if failed:
        raise UsageError(f'{failed} of {len(paths)} configs failed')


def check_config(cfg: Config, size: int = 128) -> tuple[int, float]:
    """Build a config's model with random weights and train it for one step on the CPU.

    The step is the model's own, with the config's data preprocessor and optimiser wrapper.

    Args:
        cfg: of MMDetection or MMPretrain, as ``default_scope`` says; not changed.
        size: side in pixels of the images for detectors. Classifiers get images of the size that
            their training pipeline makes.

    Returns:
        The parameters of the model, and the sum of its losses.

    Raises:
        UsageError: the config is of another package, or the loss is not a finite number.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmpretrain'):
        raise UsageError(f'default_scope must be one of mmdet, mmpretrain, got {scope!r}')
    cfg = Config(cfg.to_dict())
    remove_checkpoints(cfg.model)
    if 'data_preprocessor' in cfg:
        # Where MMPretrain's configs have it; MMEngine's runner moves it into the model.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    set_random_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        detector = scope == 'mmdet'
        inputs = model_inputs(cfg.model, size) if detector else _classification_inputs(cfg)
        losses = model.train_step(inputs, optim_wrapper)
    loss = losses['loss'].item()
    if not math.isfinite(loss):
        raise UsageError(f'the loss of the first step is {loss}: {losses}')
    return parameter_count(model), loss


def _classification_inputs(cfg: Config) -> dict[str, Any]:
    channels = cfg.model.backbone.get('in_channels', 3)
    transforms = cfg.train_dataloader.dataset.pipeline
    pipeline = Compose([step for step in transforms if not str(step.type).startswith('Load')])
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

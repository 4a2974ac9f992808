"""Whether configs work: each model is built and trained for one step, without data or downloads."""

import copy
import math
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import set_random_seed

from benchmarks.complexity import parameter_count
from mmfish.config.paths import dicts
from mmfish.errors import UsageError

# What a data set of MMPretrain's hands to the pipeline: long enough for every crop in use.
PICTURE_SIDE = 256


@dataclass(frozen=True)
class Checked:
    """What one training step of a config's model gave.

    Attributes:
        parameters: of the whole model.
        loss: the sum of its losses.
        seconds: for building and training.
    """

    parameters: int
    loss: float
    seconds: float


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
            found = check_config(Config.fromfile(path), size)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            print(f'{name:<{width}}  FAILED: {type(error).__name__}: {error}', flush=True)
        else:
            print(
                f'{name:<{width}}  {found.parameters:>11,} parameters  loss {found.loss:<11.5g}'
                f'{found.seconds:5.1f} s',
                flush=True,
            )
    if failed:
        raise UsageError(f'{failed} of {len(paths)} configs failed')


def check_config(cfg: Config, size: int = 128) -> Checked:
    """Build a config's model with random weights and train it for one step on the CPU.

    The step is the model's own, with the config's data preprocessor and optimiser wrapper.

    Args:
        cfg: of MMDetection or MMPretrain, as ``default_scope`` says; not changed.
        size: side in pixels of the images for detectors. Classifiers get images of the size that
            their training pipeline makes.

    Raises:
        UsageError: the config is of another package, or the loss is not a finite number.
    """
    start = time.perf_counter()
    scope = cfg.get('default_scope')
    if scope not in INPUTS:
        raise UsageError(f'default_scope must be one of {", ".join(INPUTS)}, got {scope!r}')
    cfg = copy.deepcopy(cfg)
    for part in dicts(cfg.model):
        if (part.get('init_cfg') or {}).get('type') == 'Pretrained':
            part.init_cfg = None
    if 'data_preprocessor' in cfg:
        # Where MMPretrain's configs have it; MMEngine's runner moves it into the model.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    set_random_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.train()
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        losses = model.train_step(INPUTS[scope](cfg, size), optim_wrapper)
    loss = losses['loss'].item()
    if not math.isfinite(loss):
        raise UsageError(f'the loss of the first step is {loss}: {losses}')
    return Checked(parameter_count(model), loss, time.perf_counter() - start)


def _detection_inputs(cfg: Config, size: int) -> dict[str, Any]:
    loading = next(
        part for part in dicts(cfg.train_dataloader) if part.get('type') == 'LoadAnnotations'
    )
    return demo_mm_inputs(
        batch_size=1,
        image_shapes=[(3, size, size)],
        num_items=[4],
        # The fewest: that of the boxes, where there is a head for stuff too.
        num_classes=min(part.num_classes for part in dicts(cfg.model) if 'num_classes' in part),
        with_mask=loading.get('with_mask', False),
        with_semantic=loading.get('with_seg', False),
        use_box_type=True,
    )


def _classification_inputs(cfg: Config, size: int) -> dict[str, Any]:
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


INPUTS = dict(mmdet=_detection_inputs, mmpretrain=_classification_inputs)

"""A config becomes a run, in three steps: prepare the config, check it and its files, run it."""

import os
import re
from pathlib import Path

import torch.distributed as dist
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmfish.checkpoints.loading import plain_data_only
from mmfish.config.own_data import own_data
from mmfish.config.paths import read_config
from mmfish.config.plug_in import plug_in
from mmfish.engine.check import check_testing, check_training
from mmfish.engine.fault_tolerance.stopping import signal_handlers_kept
from mmfish.engine.prepare import prepare_testing, prepare_training
from mmfish.errors import ConfigError, DataError, UsageError
from mmfish.models import FishNet
from mmfish.stack import first_rank_of_machine


def load_config(
    config: str | os.PathLike,
    *,
    backbone: str | None = None,
    work_dir: str | None = None,
    data_root: str | None = None,
    val_fraction: float | str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config, and apply the options that say which model and data set it is for.

    Args:
        config: path of the config file, or ``package::path``.
        backbone: an arch of FishNet to put in the place of the config's ResNet (`plug_in`).
        work_dir: where logs and checkpoints go. Defaults to the config's own, or else
            ``work_dirs/<name of the config>``, with the backbone's name if one is given.
        data_root: the folder of a data set, instead of the config's own (`own_data`).
        val_fraction: for one with a single annotation file, the share of images for validation.
        cfg_options: further settings, by dotted names. They have the last word.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The complete config.

    Raises:
        ConfigError: there is no such file, or it is no config of MMEngine's.
        UsageError: ``backbone`` or ``data_root`` cannot be applied to it.
    """
    cfg = read_config(config)
    name = Path(config).stem
    if backbone:
        cfg = plug_in(cfg, backbone)
        name += f'_{backbone}'
    options = cfg_options or {}
    cfg.work_dir = work_dir or options.get('work_dir') or cfg.get('work_dir') or f'work_dirs/{name}'
    if data_root:
        cfg = own_data(cfg, data_root, val_fraction=val_fraction)
    elif val_fraction is not None:
        raise UsageError('--val-fraction goes with --data-root: name the folder of a data set')
    cfg.merge_from_dict({**options, 'work_dir': cfg.work_dir})
    cfg.launcher = launcher
    return cfg


def run_train(
    cfg: Config,
    *,
    amp: bool = False,
    auto_scale_lr: bool = False,
    channels_last: bool = False,
    resume: str | None = None,
) -> Runner:
    """Train as a config says.

    Args:
        cfg: from `load_config`; changed in place.
        amp: automatic mixed precision.
        auto_scale_lr: scale the learning rate from ``auto_scale_lr.base_batch_size`` to the
            batch size of this run.
        channels_last: keep weights and features in channels-last memory format.
        resume: 'auto' for the newest good checkpoint of the work directory, if there is one yet, or
            the path of a checkpoint.

    Returns:
        The runner, when it has finished.

    Raises:
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be trained on.
        CheckpointError: weights that the run starts from are not there, or do not fit, or there is
            nothing whole to resume from.
        ConfigError: the config is not for this version, or its parts do not fit each other.
        TrainingError: a loss is NaN or Inf.
        UsageError: ``auto_scale_lr`` without a base batch size in the config; ``channels_last``
            with a runner of the config's own; ``amp``, a launcher or a number of processes that
            needs GPUs which are not there.
    """
    stock = prepare_training(
        cfg, amp=amp, auto_scale_lr=auto_scale_lr, channels_last=channels_last, resume=resume
    )
    if first_rank_of_machine():  # if a check fails there, the launcher ends the other ranks
        check_training(cfg)
    with plain_data_only(), signal_handlers_kept():
        runner = build_runner(cfg, stock)
        check_classes(runner)
        runner.train()
    return runner


def run_test(
    cfg: Config,
    checkpoint: str,
    *,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    fuse_conv_bn: bool = False,
    channels_last: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint as a config says.

    Args:
        cfg: from `load_config`; changed in place.
        checkpoint: path of the checkpoint.
        out: a ``.pkl`` file for the predictions.
        show: show each prediction in a window.
        show_dir: a folder for pictures of the predictions; of detectors it lies inside the work
            directory.
        wait_time: seconds for which ``show`` shows each.
        tta: test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say, or else
            with horizontally flipped images.
        fuse_conv_bn: fold normalisation into the convolutions (`mmfish.fuse`).
        channels_last: keep weights and features in channels-last memory format.

    Returns:
        The metrics, as the config's evaluator names them.

    Raises:
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be tested with.
        CheckpointError: the checkpoint is not there, or not that of the config's model.
        ConfigError: the config is not for this version, or its parts do not fit each other.
        UsageError: ``out`` is no ``.pkl`` file, or the config has no visualization hook for
            ``show`` and ``show_dir``, no pipeline for ``tta``, or a runner of its own although
            ``channels_last`` is set; or a launcher or a number of processes needs GPUs which are
            not there.
    """
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out writes a pickle: expected a name ending in .pkl, got {out}')
    stock = prepare_testing(
        cfg,
        checkpoint,
        show=show,
        show_dir=show_dir,
        wait_time=wait_time,
        tta=tta,
        fuse_conv_bn=fuse_conv_bn,
        channels_last=channels_last,
    )
    if first_rank_of_machine():
        check_testing(cfg)
    with plain_data_only():
        runner = build_runner(cfg, stock)
        if out:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        return runner.test()


def build_runner(cfg: Config, stock: Config) -> Runner:
    """Build the runner of a config that has been prepared.

    Args:
        cfg: is not changed.
        stock: the same without what mmfish adds. The work directory and the checkpoints keep this
            one, so that MMDetection's own tools and inferencers can go on from there.
    """
    setup_cache_size_limit_of_dynamo()
    if cfg.launcher != 'none' and get_device() == 'cpu' and not dist.is_initialized():
        # MMEngine would select a GPU first. It takes a process group that is there already.
        dist.init_process_group('gloo')
    runner = RUNNERS.build(cfg)
    runner.cfg = stock
    runner.dump_config()
    return runner


def check_classes(runner: Runner) -> None:
    """Check that the data set is not empty, and that FishNet's heads have enough classes for it.

    Args:
        runner: its training data set is built here if it has not been yet.

    Raises:
        DataError: the data set is empty.
        ConfigError: a head has fewer classes than the data set.
    """
    try:
        dataset = runner.train_dataloader.dataset
    except ValueError as error:
        # NumPy cannot join the images of a data set that has none.
        if 'at least one array' not in str(error):
            raise
        raise DataError(
            'there is nothing to train on: the data set has no image with an annotation that '
            'its filter_cfg leaves; look at the warnings above, its ann_file and its filter_cfg'
        ) from error
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if not isinstance(model, nn.Module):
        return  # MMEngine's FlexibleRunner builds it later
    if not any(isinstance(module, FishNet) for module in model.modules()):
        return  # other models are MMDetection's to judge
    if hasattr(model, 'language_model'):
        return  # the heads of GLIP and Grounding DINO compare boxes with words, of any number
    for name, module in model.named_modules():
        known = getattr(module, 'num_classes', None)
        # RPNs and mask heads may treat all classes alike.
        if re.search(r'\bbbox_head(\.\d+)?$', name) and known and known < len(classes):
            raise ConfigError(
                f'model.{name} has num_classes={known}, and the data set has {len(classes)} '
                'classes: set num_classes of each head to that, or fewer classes in metainfo of '
                'the data set'
            )

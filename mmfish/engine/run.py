"""A config becomes a run, in three steps: prepare the config, check it and its files, run it."""

import os
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from mmfish.checkpoints.loading import plain_data_only
from mmfish.config.own_data import own_data
from mmfish.config.paths import read_config
from mmfish.config.plug_in import plug_in
from mmfish.engine.check import check_classes, check_testing, check_training
from mmfish.engine.fault_tolerance.stopping import signal_handlers_kept
from mmfish.engine.prepare import prepare_testing, prepare_training
from mmfish.errors import UsageError
from mmfish.stack import first_rank_of_machine


def load_config(
    config: str | os.PathLike,
    *,
    backbone: str | None = None,
    work_dir: str | None = None,
    data_root: str | None = None,
    val_fraction: float | str | None = None,
    training: bool = True,
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
        training: False for a run that only tests, for which any split of ``data_root`` will do.
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
        cfg = own_data(cfg, data_root, val_fraction=val_fraction, training=training)
    elif val_fraction is not None:
        raise UsageError('--val-fraction goes with --data-root: name the folder of a data set')
    cfg.merge_from_dict({**options, 'work_dir': cfg.work_dir})
    cfg.launcher = launcher
    return cfg


def run_train(cfg: Config, **options: Any) -> Runner:
    """Train as a config says.

    Args:
        cfg: from `load_config`; changed in place.
        **options: of `mmfish.engine.prepare.prepare_training`: ``amp``, ``auto_scale_lr``,
            ``channels_last``, ``resume``.

    Returns:
        The runner, when it has finished.

    Raises:
        UsageError: the options, the config, the data or the weights do not allow the training, or
            a loss is NaN or Inf. The kinds are in `mmfish.errors`.
    """
    stock = prepare_training(cfg, **options)
    if first_rank_of_machine():  # if a check fails there, the launcher ends the other ranks
        check_training(cfg)
    with plain_data_only(), signal_handlers_kept():
        runner = build_runner(cfg, stock)
        check_classes(runner)
        runner.train()
    return runner


def run_test(
    cfg: Config, checkpoint: str, *, out: str | None = None, **options: Any
) -> dict[str, float]:
    """Evaluate a checkpoint as a config says.

    Args:
        cfg: from `load_config`; changed in place.
        checkpoint: path of the checkpoint.
        out: a ``.pkl`` file for the predictions.
        **options: of `mmfish.engine.prepare.prepare_testing`: ``show``, ``show_dir``,
            ``wait_time``, ``tta``, ``fuse_conv_bn``, ``channels_last``.

    Returns:
        The metrics, as the config's evaluator names them.

    Raises:
        UsageError: the options, the config, the data or the checkpoint do not allow the test. The
            kinds are in `mmfish.errors`.
    """
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out writes a pickle: expected a name ending in .pkl, got {out}')
    stock = prepare_testing(cfg, checkpoint, **options)
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
        stock: the same without what mmfish adds. The log, the work directory and the checkpoints
            keep this one, so that MMDetection's own tools and inferencers can go on from there.
    """

    class Prepared(Config):
        # Formatted once; MMEngine would do it four times, and again for each checkpoint.
        pretty_text = stock.pretty_text
        to_dict = stock.to_dict

    setup_cache_size_limit_of_dynamo()
    if cfg.launcher != 'none' and get_device() == 'cpu' and not dist.is_initialized():
        # MMEngine would select a GPU first. It takes a process group that is there already.
        dist.init_process_group('gloo')
    return RUNNERS.build(Prepared(dict(cfg.items()), filename=cfg.filename))

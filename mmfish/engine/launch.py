"""From a config and command-line options to a run: what `tools/train.py` and `test.py` call."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmfish.checkpoints.loading import (
    check_numbers,
    load_backbone_state,
    plain_data_only,
    read_state_dict,
)
from mmfish.config.paths import read_config
from mmfish.config.plug_in import plug_in
from mmfish.config.validation import is_fishnet, name_data_errors, validate_config
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.layouts import check_data, set_data_root
from mmfish.engine.fault_tolerance.saving import POINTER, checkpoint_to_resume
from mmfish.errors import CheckpointError, ConfigError, DataError, UsageError


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share: MMDetection's own, and ``--data-root``."""
    parser.add_argument('--work-dir', help='for logs and checkpoints (work_dirs/<config name>)')
    parser.add_argument('--data-root', help="folder of the data set, instead of the config's own")
    add_config_arguments(parser)
    parser.add_argument(
        '--channels-last', action='store_true', help='lay features out as NHWC: faster convolutions'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it, torchrun does not.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that change a config: ``--backbone`` and ``--cfg-options``."""
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="put FishNet in the place of the config's ResNet, e.g. fishnet150 (fixed norm layers: "
        '--cfg-options model.backbone.norm_cfg.type=mmfish.FrozenBN)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=2 key="[a,b]"',
    )


def run_tool(main: Callable[[], object]) -> None:
    """Run a command-line tool; what the user can put right ends it with a sentence alone."""
    try:
        main()
    except UsageError as error:
        sys.exit(f'{Path(sys.argv[0]).name}: {_sentence(error)}')


def _sentence(error: UsageError) -> str:
    """What an error says; one from a worker process says its whole story, and that last."""
    last = str(error).strip().rpartition('\n')[-1]
    return re.sub(rf'^[\w.]*{type(error).__name__}: ', '', last)


def load_config(
    config: str,
    *,
    backbone: str | None = None,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    channels_last: bool = False,
    launcher: str = 'none',
) -> Config:
    """Read a config and apply the options that training and testing share.

    Args:
        config: path of the config file, or ``package::path``.
        backbone: an arch of FishNet to put in the place of the config's ResNet (`plug_in`).
        work_dir: where logs and checkpoints go. Defaults to the config's own, or else
            ``work_dirs/<name of the config>``, with the backbone's name if one is given.
        data_root: a folder in the layout of the config's data set, instead of the config's own.
        cfg_options: further settings, by dotted names.
        channels_last: lay the features of the whole model out as NHWC.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        The complete config.

    Raises:
        ConfigError: there is no such file, or it is no config of MMEngine's.
    """
    cfg = read_config(config)
    name = Path(config).stem
    if backbone:
        cfg = plug_in(cfg, backbone)
        name += f'_{backbone}'
    if data_root:
        set_data_root(cfg, data_root)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if channels_last:
        _add_hook(cfg, 'mmfish.ChannelsLastHook')
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    return cfg


def run_train(
    cfg: Config, *, amp: bool = False, auto_scale_lr: bool = False, resume: str | None = None
) -> Runner:
    """Train as a config says.

    Args:
        cfg: from `load_config`; changed in place.
        amp: automatic mixed precision.
        auto_scale_lr: scale the learning rate from ``auto_scale_lr.base_batch_size`` to the
            batch size of this run.
        resume: 'auto' for the newest good checkpoint of the work directory, if there is one yet, or
            the path of one.

    Returns:
        The runner, when it has finished.

    Raises:
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be trained on.
        CheckpointError: weights that the run starts from are not there, or do not fit, or there is
            nothing whole to resume from.
        ConfigError: the config is not for this version, or its parts do not fit each other.
        TrainingError: a loss is not a finite number any more.
        UsageError: ``auto_scale_lr`` without a base batch size in the config, or ``amp``, a
            launcher or a number of processes that needs GPUs which are not there.
    """
    if amp and not torch.cuda.is_available():
        raise UsageError('--amp needs a GPU, and none was found: train without it')
    if auto_scale_lr and 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in the config: the batch '
            'size for which its learning rate was chosen'
        )
    validate_config(cfg)
    if _is_first_rank():
        _check_start(cfg)
        check_data(cfg, ('train', 'val'))
        _check_weights(cfg)
        check_annotation_files(cfg, ('train', 'val'))
    if amp:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    if int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)):
        resume = 'auto'  # torchrun restarted the ranks after one had failed
    elif not resume and int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0)):
        # A restart must not take up an earlier run of the same folder.
        Path(cfg.work_dir, POINTER).unlink(missing_ok=True)
    if resume:
        checkpoint = checkpoint_to_resume(cfg.work_dir, resume, quiet=not _is_first_rank())
        if checkpoint:
            cfg.resume = True
            cfg.load_from = checkpoint
    survive_interruptions(cfg)
    _add_hook(cfg, 'mmfish.CheckWeightsHook', whole=bool(cfg.get('resume')))
    with plain_data_only():
        runner = _build_runner(cfg)
        _check_training_data(runner)
        runner.train()
    return runner


def survive_interruptions(cfg: Config) -> None:
    """Have a training save whole checkpoints, resume exactly, and stop in order.

    Replaces MMEngine's own checkpoint hook and loop over epochs, if the config has these, and adds
    hooks; other loops and checkpoint hooks of the config stay.

    Args:
        cfg: of MMDetection, MMPretrain or MMEngine; changed in place.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if hooks.checkpoint and hooks.checkpoint.get('type') == 'CheckpointHook':
        hooks.checkpoint.type = 'mmfish.AtomicCheckpointHook'
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch') or loop.get('type') == 'EpochBasedTrainLoop':
        loop.pop('by_epoch', None)
        loop.type = 'mmfish.ResumableTrainLoop'
        # Workers that outlive an epoch would carry random states over to the next.
        cfg.train_dataloader.persistent_workers = False
    for name in ('AverageStatisticsHook', 'StopHook', 'ResumeHook'):
        _add_hook(cfg, f'mmfish.{name}')


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
        tta: test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say.
        fuse_conv_bn: fold normalisation into the convolutions (`mmfish.fuse`).

    Returns:
        The metrics, as the config's evaluator names them.

    Raises:
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be tested with.
        CheckpointError: the checkpoint is not there, or not that of the config's model.
        ConfigError: the config is not for this version, or its parts do not fit each other.
        UsageError: ``out`` is no ``.pkl`` file, or the config has nothing for ``tta`` or no
            visualization hook for ``show`` and ``show_dir``.
    """
    if out and not out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out writes a pickle: expected a name ending in .pkl, got {out}')
    if tta and not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise UsageError('--tta needs tta_model and tta_pipeline in the config')
    if show or show_dir:
        _visualize(cfg, show, show_dir, wait_time)
    validate_config(cfg)
    if _is_first_rank():
        _check_file(checkpoint)
        check_data(cfg, ('test',))
        check_numbers(read_state_dict(checkpoint), checkpoint)
        check_annotation_files(cfg, ('test',))
    cfg.load_from = checkpoint
    if tta:
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    if fuse_conv_bn:
        _add_hook(cfg, 'mmfish.FuseHook')
    _add_hook(cfg, 'mmfish.CheckWeightsHook', whole=True)
    with plain_data_only():
        runner = _build_runner(cfg)
        if out:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        return runner.test()


def _visualize(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Switch on the hook that draws, whose settings differ between MMPretrain and MMDetection."""
    if 'visualization' not in cfg.get('default_hooks', {}):
        raise UsageError(
            "--show and --show-dir need default_hooks=dict(visualization=dict(type='...')) in the "
            'config: the hook that draws predictions'
        )
    if cfg.get('default_scope') == 'mmpretrain':
        cfg.default_hooks.visualization.update(
            enable=True, interval=1, show=show, out_dir=show_dir, wait_time=wait_time
        )
    else:
        options = ConfigDict(show=show, show_dir=show_dir, wait_time=wait_time)
        trigger_visualization_hook(cfg, options)


def _is_first_rank() -> bool:
    # One rank of each machine looks at files; if it gives up, the launcher ends the others.
    return os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', '0')) == '0'


def _check_start(cfg: Config) -> None:
    """Look for the files that a run starts from."""
    checkpoint = _pretrained(cfg)
    if checkpoint and '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise CheckpointError(
            f'The backbone starts from {checkpoint}, and there is no such file: train that '
            'classifier first, or name another file with --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE, or start from scratch with '
            'model.backbone.init_cfg=None'
        )
    if cfg.get('load_from') and not cfg.get('resume'):
        _check_file(cfg.load_from)


def _check_file(checkpoint: str) -> None:
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        found = 'it is a folder' if os.path.isdir(checkpoint) else 'there is no such file'
        raise CheckpointError(f'{checkpoint} cannot be loaded: {found}; give that of a checkpoint')


def _check_weights(cfg: Config) -> None:
    """Read the files once more than needed: it takes seconds, and reading COCO first a minute."""
    checkpoint = _pretrained(cfg)
    if checkpoint and is_fishnet(cfg.model.backbone):
        check_numbers(load_backbone_state(checkpoint), checkpoint)
    if cfg.get('load_from') and not cfg.get('resume'):
        check_numbers(read_state_dict(cfg.load_from), cfg.load_from)


def _pretrained(cfg: Config) -> str | None:
    init_cfg = cfg.get('model', {}).get('backbone', {}).get('init_cfg')
    checkpoint = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    return checkpoint if isinstance(checkpoint, str) else None


def _add_hook(cfg: Config, name: str, **options: object) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name, **options)]


def _build_runner(cfg: Config) -> Runner:
    name_data_errors(cfg)
    setup_cache_size_limit_of_dynamo()
    gpus, ranks = torch.cuda.device_count(), int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if cfg.launcher != 'none' and not gpus:
        _init_cpu_ranks(cfg)
    elif ranks > gpus > 0:
        raise UsageError(
            f'{ranks} processes need as many GPUs, and this machine has {gpus}: start {gpus}, or '
            'set CUDA_VISIBLE_DEVICES to nothing to train on the CPU'
        )
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _check_training_data(runner: Runner) -> None:
    try:
        dataset = runner.train_loop.dataloader.dataset
    except ValueError as error:
        # MMEngine cannot pack a data set of no images.
        if 'at least one array' not in str(error):
            raise
        raise DataError(
            'there is nothing to train on: the data set has no image with an annotation that '
            'its filter_cfg leaves; look at the warnings above, its ann_file and its filter_cfg'
        ) from error
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for name, module in model.named_modules():
        known = getattr(module, 'num_classes', None)
        # The RPN and masks may do without classes.
        if re.search(r'\bbbox_head(\.\d+)?$', name) and known and known < len(classes):
            raise ConfigError(
                f'model.{name} has num_classes={known}, and the data set has {len(classes)} '
                'classes: set num_classes of each head to that, or fewer classes in metainfo of '
                'the data set'
            )


def _init_cpu_ranks(cfg: Config) -> None:
    """Let several ranks train without a GPU.

    MMEngine's launchers call `torch.cuda.set_device`, unless there is a process group already;
    its default model wrapper puts the model on the GPU of that number.
    """
    if cfg.launcher != 'pytorch':
        raise UsageError(
            f'no GPU was found, and without one only --launcher pytorch works (through torchrun, '
            f'as tools/dist_train.sh does), not {cfg.launcher}'
        )
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )

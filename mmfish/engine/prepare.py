"""The first step of a run: every change that is made to a config, one function for each feature.

The functions change the config in place. A component is recognised by the class that its ``type``
stands for, so that it makes no difference whether a config names it, names it with a scope, or, as
pure-Python configs do, has the class itself. Only the classes of MMEngine, MMCV and MMDetection
are replaced; others, such as a user's subclasses of them, stay.
"""

import copy
import os
from pathlib import Path

import mmcv.transforms
import mmdet.datasets.transforms
import torch
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, LOOPS, MODEL_WRAPPERS, RUNNERS, TRANSFORMS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.nn.parallel import DistributedDataParallel

from mmfish.atomic import write_atomically
from mmfish.config.paths import dicts
from mmfish.engine.fault_tolerance.saving import POINTER, checkpoint_to_resume
from mmfish.errors import UsageError
from mmfish.registry import component
from mmfish.stack import first_rank, first_rank_of_machine


def prepare_training(
    cfg: Config,
    *,
    amp: bool = False,
    auto_scale_lr: bool = False,
    channels_last: bool = False,
    resume: str | None = None,
) -> Config:
    """Make every change that a training needs.

    Args:
        cfg: changed in place.
        amp: automatic mixed precision.
        auto_scale_lr: scale the learning rate from ``auto_scale_lr.base_batch_size`` to the
            batch size of this run.
        channels_last: keep weights and features in channels-last memory format.
        resume: 'auto' for the newest good checkpoint of the work directory, if there is one yet, or
            the path of a checkpoint.

    Returns:
        The config as MMDetection's own tool would run it, without what mmfish adds.

    Raises:
        UsageError: an option cannot be had with this config, or on this machine.
        CheckpointError: there is nothing whole to resume from.
    """
    if amp:
        use_mixed_precision(cfg)
    if auto_scale_lr:
        scale_learning_rate(cfg)
    start_from_checkpoint(cfg, resume)
    stock = copy.deepcopy(cfg)
    if channels_last:
        use_channels_last(cfg)
    tolerate_faults(cfg)
    use_own_transforms(cfg)
    give_each_rank_a_device(cfg)
    add_hook(cfg, 'mmfish.CheckWeightsHook', whole=bool(cfg.get('resume')))
    add_hook(cfg, 'mmfish.RecordHook')
    return stock


def prepare_testing(
    cfg: Config,
    checkpoint: str,
    *,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    fuse_conv_bn: bool = False,
    channels_last: bool = False,
) -> Config:
    """Make every change that testing needs.

    Args:
        cfg: changed in place.
        checkpoint: path of the checkpoint.
        show: show each prediction in a window.
        show_dir: a folder for pictures of the predictions; of detectors it lies inside the work
            directory.
        wait_time: seconds for which ``show`` shows each.
        tta: test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say, or else
            with horizontally flipped images.
        fuse_conv_bn: fold normalisation into the convolutions (`mmfish.fuse`).
        channels_last: keep weights and features in channels-last memory format.

    Returns:
        The config as MMDetection's own tool would run it, without what mmfish adds.

    Raises:
        UsageError: an option cannot be had with this config, or on this machine.
    """
    cfg.load_from = checkpoint
    if show or show_dir:
        draw_predictions(cfg, show, show_dir, wait_time)
    if tta:
        augment_in_testing(cfg)
    stock = copy.deepcopy(cfg)
    if fuse_conv_bn:
        add_hook(cfg, 'mmfish.FuseHook')
    if channels_last:
        use_channels_last(cfg)
    use_own_transforms(cfg)
    give_each_rank_a_device(cfg)
    add_hook(cfg, 'mmfish.CheckWeightsHook', whole=True)
    add_hook(cfg, 'mmfish.RecordHook')
    return stock


def use_mixed_precision(cfg: Config) -> None:
    """Train with automatic mixed precision.

    Raises:
        UsageError: there is no GPU.
    """
    if get_device() in ('cpu', 'mps'):
        raise UsageError('--amp needs a GPU, and none was found: train without it')
    cfg.merge_from_dict(
        {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic'}
    )


def scale_learning_rate(cfg: Config) -> None:
    """Scale the learning rate from the batch size that it was chosen for to that of this run.

    Raises:
        UsageError: the config does not say for which batch size its learning rate was chosen.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=…) in the config: the batch '
            'size for which its learning rate was chosen'
        )
    cfg.auto_scale_lr.enable = True


def use_channels_last(cfg: Config) -> None:
    """Keep weights and features in channels-last memory format.

    Raises:
        UsageError: the config has a runner of its own.
    """
    runner = component(cfg.get('runner_type', 'Runner'), RUNNERS, cfg.get('default_scope'))
    if runner is not Runner:
        raise UsageError(
            f'--channels-last needs the Runner of MMEngine, and the config has runner_type='
            f'{cfg.runner_type!r}: run it without one of the two'
        )
    cfg.runner_type = 'mmfish.ChannelsLastRunner'


def start_from_checkpoint(cfg: Config, resume: str | None) -> None:
    """Resume from a checkpoint, if asked to, or if torchrun has restarted the ranks.

    A restart goes on from the newest checkpoint that this run has written, or else from where it
    began. So when the run begins, ``last_checkpoint`` in its work directory, which may be that of
    an earlier run, is set to the checkpoint to resume from, or is removed if there is none.

    Args:
        cfg: changed in place.
        resume: 'auto' for the newest good checkpoint of the work directory, if there is one yet, or
            the path of a checkpoint, or None: then the config's own ``resume`` and ``load_from``
            say so, as in MMEngine.

    Raises:
        CheckpointError: there is nothing whole to resume from.
    """
    if cfg.get('resume') and not resume:
        resume = cfg.get('load_from') or 'auto'
    restarted = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') != '0'
    checkpoint = None
    if resume or restarted:
        checkpoint = checkpoint_to_resume(
            cfg.work_dir, 'auto' if restarted else resume, quiet=not first_rank_of_machine()
        )
    may_be_restarted = os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0'
    if may_be_restarted and not restarted and first_rank():
        pointer = Path(cfg.work_dir, POINTER)
        if checkpoint:
            write_atomically(pointer, checkpoint.encode())
        else:
            pointer.unlink(missing_ok=True)
    if checkpoint:
        cfg.resume = True
        cfg.load_from = checkpoint


def tolerate_faults(cfg: Config) -> None:
    """Write checkpoints atomically, resume exactly, and stop all ranks in order.

    Replaces MMEngine's own checkpoint hook and its loop over epochs, and adds hooks. Other loops
    and checkpoint hooks stay.
    """
    scope = cfg.get('default_scope')
    hooks = cfg.get('default_hooks') or ConfigDict()
    hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    cfg.default_hooks = hooks
    for hook in [*cfg.default_hooks.values(), *(cfg.get('custom_hooks') or [])]:
        if isinstance(hook, dict) and component(hook.get('type'), HOOKS, scope) is CheckpointHook:
            hook['type'] = 'mmfish.AtomicCheckpointHook'
    loop = cfg.get('train_cfg') or {}
    by_epoch = 'type' not in loop and loop.get('by_epoch')
    if by_epoch or component(loop.get('type'), LOOPS, scope) is EpochBasedTrainLoop:
        loop.pop('by_epoch', None)
        loop['type'] = 'mmfish.ResumableTrainLoop'
        # Workers that outlive an epoch would carry random states over to the next.
        cfg.merge_from_dict({'train_dataloader.persistent_workers': False})
    for name in ('AverageStatisticsHook', 'StopHook', 'ResumeHook'):
        add_hook(cfg, f'mmfish.{name}')


def use_own_transforms(cfg: Config) -> None:
    """Put mmfish's transforms in the place of the stock ones that they derive from.

    The errors of `LoadImageFromFile` and `LoadAnnotations` name the file, and `Resize` leaves at
    least one pixel of each side.
    """
    replaced = {
        mmcv.transforms.LoadImageFromFile: 'mmfish.LoadImageFromFile',
        mmdet.datasets.transforms.LoadAnnotations: 'mmfish.LoadAnnotations',
        mmdet.datasets.transforms.Resize: 'mmfish.Resize',
    }
    # These build the transform that resizes from their option ``resize_type``.
    resizing = (
        mmcv.transforms.RandomResize,
        mmcv.transforms.RandomChoiceResize,
        mmdet.datasets.transforms.ResizeShortestEdge,
    )
    scope = cfg.get('default_scope')
    for split in ('train', 'val', 'test'):
        for step in dicts((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            kind = component(step.get('type'), TRANSFORMS, scope)
            if kind is mmcv.transforms.LoadImageFromFile and split != 'train':
                # Without an image MMDetection cannot evaluate either, and does not say which it is.
                step.pop('ignore_empty', None)
            if kind in replaced:
                step['type'] = replaced[kind]
            elif kind in resizing:
                resize = component(step.get('resize_type', 'Resize'), TRANSFORMS, scope)
                if resize in replaced:
                    step['resize_type'] = replaced[resize]


def give_each_rank_a_device(cfg: Config) -> None:
    """See that each rank has a GPU, or, without any GPU, let the ranks run on the CPU.

    MMEngine's default model wrapper puts the model on the GPU of the rank's number.

    Raises:
        UsageError: there are fewer GPUs than ranks, or none, and the launcher needs one.
    """
    gpus, ranks = torch.cuda.device_count(), int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if ranks > gpus > 0:
        raise UsageError(
            f'{ranks} processes need as many GPUs, and this machine has {gpus}: start {gpus}, or '
            'set CUDA_VISIBLE_DEVICES to nothing to run on the CPU'
        )
    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        raise UsageError(
            f'no GPU was found, and without one only --launcher pytorch works (through torchrun, '
            f'as tools/dist_train.sh does), not {cfg.launcher}'
        )
    if not cfg.get('model_wrapper_cfg'):
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    wrapper = cfg.model_wrapper_cfg
    kind = component(wrapper.get('type', 'MMDistributedDataParallel'), MODEL_WRAPPERS)
    if isinstance(kind, type) and issubclass(kind, DistributedDataParallel):
        wrapper['device_ids'] = None


def draw_predictions(cfg: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Switch on the hook that draws, whose settings differ between MMPretrain and MMDetection.

    Raises:
        UsageError: the config has no such hook.
    """
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


def augment_in_testing(cfg: Config) -> None:
    """Test with test-time augmentation: as the config says, or else with flipped images too.

    Raises:
        UsageError: the config has no pipeline for testing.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    if not dataset.get('pipeline') or not cfg.get('model'):
        raise UsageError(
            '--tta needs a model and test_dataloader=dict(dataset=dict(pipeline=[...])) in the '
            'config'
        )
    classifies = cfg.get('default_scope') == 'mmpretrain'
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = (
            dict(type='mmpretrain.AverageClsScoreTTA')
            if classifies
            else dict(type='mmdet.DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
        )
    if 'tta_pipeline' not in cfg:
        *steps, pack = dataset['pipeline']
        flip = 'mmcv.transforms.RandomFlip' if classifies else 'mmdet.RandomFlip'
        flips = [dict(type=flip, prob=1.0), dict(type=flip, prob=0.0)]
        if pack.get('meta_keys'):
            # DetTTAModel flips the boxes back.
            pack = pack.copy()
            pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    # Copies of the dicts themselves: read one by one, classes of a pure-Python config would be
    # written into a dump of it as something that Python cannot read.
    model = cfg.tta_model.copy()
    model.module = cfg.model
    cfg.model = model
    dataset['pipeline'] = cfg.tta_pipeline


def add_hook(cfg: Config, name: str, **options: object) -> None:
    """Add a hook with its options behind the config's own hooks."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name, **options)]

"""The changes to a config before a run, one feature after the other."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.hub import get_config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from mmfish import config_path
from mmfish.engine.fault_tolerance.resuming import ResumableTrainLoop
from mmfish.engine.prepare import (
    augment_in_testing,
    give_each_rank_a_device,
    scale_learning_rate,
    start_from_checkpoint,
    tolerate_faults,
    use_channels_last,
    use_own_transforms,
)
from mmfish.engine.run import load_config, run_test
from mmfish.errors import CheckpointError, UsageError

CONFIG = config_path('mask_rcnn_fishnet150_fpn_coco.py')
PURE_PYTHON = Path(__file__).parent / 'pure_python'
ATOMIC = 'mmfish.AtomicCheckpointHook'
RESUMABLE = 'mmfish.ResumableTrainLoop'


@pytest.mark.parametrize(
    'config',
    [
        CONFIG,
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        str(PURE_PYTHON / 'retinanet_fishnet.py'),
    ],
)
def test_every_training_writes_atomic_checkpoints_and_can_resume_within_an_epoch(config):
    cfg = get_config(config) if '::' in config else load_config(config)
    tolerate_faults(cfg)
    assert cfg.default_hooks.checkpoint.type == ATOMIC
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.train_cfg.type == RESUMABLE
    assert LOOPS.get(cfg.train_cfg.type) is ResumableTrainLoop
    assert not cfg.train_dataloader.persistent_workers
    added = [hook.type for hook in cfg.custom_hooks]
    assert added[-3:] == ['mmfish.AverageStatisticsHook', 'mmfish.StopHook', 'mmfish.ResumeHook']


@pytest.mark.parametrize(
    ('train_cfg', 'hook'),
    [
        (dict(by_epoch=True), 'CheckpointHook'),
        (dict(type='mmengine.EpochBasedTrainLoop'), 'mmengine.CheckpointHook'),
        (dict(type='mmengine.runner.EpochBasedTrainLoop'), 'mmengine.hooks.CheckpointHook'),
        (dict(type=EpochBasedTrainLoop), CheckpointHook),
    ],
)
@pytest.mark.parametrize('scope', [None, 'mmdet'])
def test_the_loop_and_the_checkpoint_hook_are_recognised_however_they_are_written(
    train_cfg, hook, scope
):
    cfg = Config(
        dict(
            train_cfg=dict(train_cfg, max_epochs=1),
            train_dataloader=dict(persistent_workers=True),
            default_hooks=dict(checkpoint=dict(type=hook, interval=3)),
            custom_hooks=[dict(type=hook, by_epoch=False, interval=5)],
            default_scope=scope,
        )
    )
    tolerate_faults(cfg)
    assert cfg.train_cfg == dict(type=RESUMABLE, max_epochs=1)
    assert cfg.default_hooks.checkpoint == dict(type=ATOMIC, interval=3)
    assert cfg.custom_hooks[0] == dict(type=ATOMIC, by_epoch=False, interval=5)
    assert not cfg.train_dataloader.persistent_workers


class OwnLoop(EpochBasedTrainLoop):
    pass


class OwnHook(CheckpointHook):
    pass


@pytest.mark.parametrize(('loop', 'hook'), [('OwnLoop', 'OwnHook'), (OwnLoop, OwnHook)])
def test_the_users_own_loops_and_checkpoint_hooks_stay(loop, hook):
    cfg = Config(
        dict(
            train_cfg=dict(type=loop, max_epochs=1),
            train_dataloader=dict(persistent_workers=True),
            default_hooks=dict(checkpoint=dict(type=hook)),
        )
    )
    tolerate_faults(cfg)
    assert cfg.train_cfg.type == loop
    assert cfg.train_dataloader.persistent_workers
    assert cfg.default_hooks.checkpoint.type == hook


def test_a_pure_python_config_can_still_be_dumped_and_read(tmp_path):
    cfg = load_config(str(PURE_PYTHON / 'retinanet_fishnet.py'))
    tolerate_faults(cfg)
    use_own_transforms(cfg)
    cfg.dump(tmp_path / 'dumped.py')
    dumped = Config.fromfile(tmp_path / 'dumped.py')
    assert dumped.train_cfg.type == RESUMABLE
    assert dumped.model.backbone.type == 'mmfish.models.FishNet'
    steps = [step.type for step in dumped.train_dataloader.dataset.pipeline]
    assert steps[:2] == ['mmfish.LoadImageFromFile', 'mmfish.LoadAnnotations']


@pytest.mark.parametrize(
    ('scope', 'kind', 'ours'),
    [
        ('mmdet', 'LoadImageFromFile', 'mmfish.LoadImageFromFile'),
        ('mmdet', 'mmcv.transforms.LoadImageFromFile', 'mmfish.LoadImageFromFile'),
        ('mmdet', 'LoadAnnotations', 'mmfish.LoadAnnotations'),
        ('mmengine', 'mmdet.LoadAnnotations', 'mmfish.LoadAnnotations'),
        # MMCV's own, and others of MMDetection: they stay.
        ('mmpretrain', 'LoadAnnotations', 'LoadAnnotations'),
        ('mmdet', 'LoadPanopticAnnotations', 'LoadPanopticAnnotations'),
        ('mmdet', 'LoadMultiChannelImageFromFiles', 'LoadMultiChannelImageFromFiles'),
    ],
)
def test_loading_is_replaced_in_wrapped_data_sets_too(scope, kind, ours):
    dataset = dict(type='RepeatDataset', dataset=dict(pipeline=[dict(type=kind, color_type='x')]))
    cfg = Config(dict(default_scope=scope, train_dataloader=dict(dataset=dataset)))
    use_own_transforms(cfg)
    assert cfg.train_dataloader.dataset.dataset.pipeline == [dict(type=ours, color_type='x')]


def test_an_evaluation_skips_no_images():
    cfg = Config.fromfile(CONFIG)
    for split in ('train', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[0].ignore_empty = True
    use_own_transforms(cfg)
    assert cfg.train_dataloader.dataset.pipeline[0].ignore_empty
    assert 'ignore_empty' not in cfg.test_dataloader.dataset.pipeline[0]


@pytest.mark.parametrize('config', [CONFIG, config_path('imagenet/fishnet99_imagenet.py')])
def test_our_own_configs_get_loading_that_names_files(config):
    cfg = Config.fromfile(config)
    use_own_transforms(cfg)
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert pipeline[0].type == 'mmfish.LoadImageFromFile'
    if config == CONFIG:
        assert pipeline[1].type == 'mmfish.LoadAnnotations'


def test_auto_scale_lr_without_a_base_batch_size_is_an_error():
    with pytest.raises(UsageError, match='base_batch_size'):
        scale_learning_rate(Config(dict()))


def test_showing_predictions_without_a_visualization_hook_is_an_error():
    with pytest.raises(UsageError, match='default_hooks'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', show_dir='pictures')


def test_tta_without_a_pipeline_is_an_error():
    with pytest.raises(UsageError, match='pipeline'):
        augment_in_testing(Config(dict()))


def test_tta_without_settings_flips_and_packs_what_the_boxes_need():
    cfg = load_config(CONFIG)
    steps = cfg.test_dataloader.dataset.pipeline
    augment_in_testing(cfg)
    assert cfg.model.type == 'mmdet.DetTTAModel'
    assert cfg.model.module.backbone.type == 'mmfish.FishNet'
    *before, augment = cfg.test_dataloader.dataset.pipeline
    assert before == steps[:-1]
    assert [flip.prob for flip in augment.transforms[0]] == [1, 0]
    assert {'flip', 'flip_direction', *steps[-1].meta_keys} == set(
        augment.transforms[1][0].meta_keys
    )


def test_channels_last_does_not_replace_the_users_own_runner():
    with pytest.raises(UsageError, match='FlexibleRunner'):
        use_channels_last(Config(dict(runner_type='FlexibleRunner')))


def test_ranks_on_the_cpu_keep_the_users_own_wrapper(monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    cfg = Config(dict(launcher='pytorch', find_unused_parameters=True))
    give_each_rank_a_device(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    for own, expected in (
        (dict(static_graph=True), dict(static_graph=True, device_ids=None)),
        (dict(type='MMFullyShardedDataParallel'), dict(type='MMFullyShardedDataParallel')),
    ):
        cfg = Config(dict(launcher='pytorch', model_wrapper_cfg=own))
        give_each_rank_a_device(cfg)
        assert cfg.model_wrapper_cfg == expected


def checkpoint(path, iteration):
    torch.save(dict(meta=dict(iter=iteration), state_dict={}), path)
    return str(path)


class Job:
    """A job of torchrun in a folder: its starts and restarts, as each rank sees them."""

    def __init__(self, work_dir, monkeypatch, resume=None, settings=None):
        self.work_dir, self.environment, self.resume = work_dir, monkeypatch, resume
        self.settings = settings or {}
        monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')

    def start(self, count=0, rank=0):
        self.environment.setenv('TORCHELASTIC_RESTART_COUNT', str(count))
        self.environment.setenv('RANK', str(rank))
        cfg = Config(dict(work_dir=str(self.work_dir), **self.settings))
        start_from_checkpoint(cfg, self.resume)
        return cfg.get('load_from')


@pytest.fixture
def earlier_run(tmp_path):
    """A work directory with the checkpoints of an earlier run."""
    for epoch in (1, 2):
        newest = checkpoint(tmp_path / f'epoch_{epoch}.pth', epoch)
    (tmp_path / 'last_checkpoint').write_text(newest)
    return tmp_path


def test_a_restart_before_the_first_checkpoint_resumes_from_the_file_again(
    earlier_run, monkeypatch
):
    file = str(earlier_run / 'epoch_1.pth')
    job = Job(earlier_run, monkeypatch, resume=file)
    assert job.start(rank=1) == job.start(rank=0) == file
    assert job.start(count=1, rank=1) == job.start(count=1) == file
    written = checkpoint(earlier_run / 'epoch_3.pth', 3)
    (earlier_run / 'last_checkpoint').write_text(written)
    assert job.start(count=2) == written


def test_a_restart_of_a_new_run_does_not_resume_an_earlier_run(earlier_run, monkeypatch):
    job = Job(earlier_run, monkeypatch)
    assert job.start() is None
    assert job.start(count=1) is None


def test_a_restart_of_a_resumed_run_resumes_again(earlier_run, monkeypatch):
    job = Job(earlier_run, monkeypatch, resume='auto')
    assert job.start() == job.start(count=1) == str(earlier_run / 'epoch_2.pth')


@pytest.mark.parametrize('load_from', [None, 'epoch_1.pth'])
def test_a_config_that_resumes_by_itself_does_so_as_with_the_option(
    load_from, earlier_run, monkeypatch
):
    file = load_from and str(earlier_run / load_from)
    job = Job(earlier_run, monkeypatch, settings=dict(resume=True, load_from=file))
    found = file or str(earlier_run / 'epoch_2.pth')
    assert job.start() == job.start(count=1) == found


def test_a_refused_file_does_not_change_last_checkpoint(earlier_run, monkeypatch):
    (earlier_run / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(CheckpointError):
        Job(earlier_run, monkeypatch, resume=str(earlier_run / 'epoch_1.pth')).start()
    assert Job(earlier_run, monkeypatch, resume='auto').start()

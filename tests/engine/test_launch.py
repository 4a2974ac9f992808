import argparse

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import LOOPS

from mmfish import config_path
from mmfish.engine.fault_tolerance.resuming import ResumableTrainLoop
from mmfish.engine.launch import (
    add_run_arguments,
    load_config,
    run_test,
    run_train,
    survive_interruptions,
)
from mmfish.errors import CheckpointError, MissingDataError, UsageError

CONFIG = config_path('mask_rcnn_fishnet150_fpn_coco.py')


def test_the_work_dir_is_named_after_the_config_unless_given():
    assert load_config(CONFIG).work_dir == 'work_dirs/mask_rcnn_fishnet150_fpn_coco'
    assert load_config(CONFIG, work_dir='elsewhere').work_dir == 'elsewhere'


def test_cfg_options_have_the_last_word_over_data_root():
    cfg = load_config(
        CONFIG, data_root='/a', cfg_options={'train_dataloader.dataset.data_root': '/b/'}
    )
    assert cfg.train_dataloader.dataset.data_root == '/b/'
    assert cfg.val_dataloader.dataset.data_root == '/a/'
    assert cfg.val_evaluator.ann_file == '/a/annotations/instances_val2017.json'


def test_weights_that_are_not_there_are_named_with_the_ways_out(tmp_path):
    name = str(tmp_path / 'fishnet99.pth')
    cfg = load_config(CONFIG, cfg_options={'model.backbone.init_cfg.checkpoint': name})
    with pytest.raises(CheckpointError, match=r'fishnet99\.pth.*checkpoint=FILE.*init_cfg=None'):
        run_train(cfg)


@pytest.mark.parametrize('option', ['init_cfg=None', 'init_cfg.checkpoint={}'])
def test_from_scratch_or_from_a_file_the_run_gets_as_far_as_the_data(option, tmp_path):
    file = tmp_path / 'fishnet150.pth'
    file.touch()
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    option = f'model.backbone.{option.format(file)}'
    args = parser.parse_args(['--data-root', str(tmp_path), '--cfg-options', option])
    cfg = load_config(CONFIG, data_root=args.data_root, cfg_options=args.cfg_options)
    expected = None if option.endswith('None') else dict(type='Pretrained', checkpoint=str(file))
    assert cfg.model.backbone.init_cfg == expected
    with pytest.raises(MissingDataError):
        run_train(cfg)


def test_auto_scale_lr_without_a_base_batch_size_is_an_error():
    with pytest.raises(UsageError, match='base_batch_size'):
        run_train(Config(dict(launcher='none')), auto_scale_lr=True)


def test_out_must_name_a_pickle():
    with pytest.raises(UsageError, match=r'results\.json'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', out='results.json')


def test_tta_without_its_settings_is_an_error():
    with pytest.raises(UsageError, match='tta_model'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', tta=True)


def test_showing_predictions_without_the_hook_for_it_is_an_error():
    with pytest.raises(UsageError, match='default_hooks'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', show_dir='pictures')


def test_channels_last_comes_after_the_hooks_of_the_config():
    hooks = load_config(CONFIG, channels_last=True).custom_hooks
    assert hooks[:-1] == load_config(CONFIG).custom_hooks
    assert hooks[-1] == dict(type='mmfish.ChannelsLastHook')


@pytest.mark.parametrize(
    'config',
    [
        CONFIG,
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    ],
)
def test_every_training_saves_whole_checkpoints_and_can_resume_within_an_epoch(config):
    cfg = get_config(config) if '::' in config else load_config(config)
    survive_interruptions(cfg)
    assert cfg.default_hooks.checkpoint.type == 'mmfish.AtomicCheckpointHook'
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.train_cfg.type == 'mmfish.ResumableTrainLoop'
    assert LOOPS.get(cfg.train_cfg.type) is ResumableTrainLoop
    assert not cfg.train_dataloader.persistent_workers
    added = [hook.type for hook in cfg.custom_hooks]
    assert added[-3:] == ['mmfish.AverageStatisticsHook', 'mmfish.StopHook', 'mmfish.ResumeHook']


def test_loops_and_checkpoint_hooks_of_ones_own_stay():
    cfg = Config(
        dict(
            train_cfg=dict(type='MyLoop', max_epochs=1),
            train_dataloader=dict(persistent_workers=True),
            default_hooks=dict(checkpoint=dict(type='MyHook')),
        )
    )
    survive_interruptions(cfg)
    assert cfg.train_cfg.type == 'MyLoop'
    assert cfg.train_dataloader.persistent_workers
    assert cfg.default_hooks.checkpoint.type == 'MyHook'

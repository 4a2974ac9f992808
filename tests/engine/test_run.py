"""From a config to a run: which model, which data, what is refused before it begins."""

import argparse

import pytest
from mmengine.config import Config

from mmfish import config_path
from mmfish.cli import add_run_arguments
from mmfish.engine.run import load_config, run_test, run_train
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


def test_out_must_name_a_pickle():
    with pytest.raises(UsageError, match=r'results\.json'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', out='results.json')

"""From a config to a run."""

import argparse
import signal
from pathlib import Path

import pytest
from mmengine.config import Config

from mmfish import config_path
from mmfish.cli import add_run_arguments
from mmfish.engine.fault_tolerance.stopping import SIGNALS
from mmfish.engine.run import load_config, run_test, run_train
from mmfish.errors import MissingDataError, TrainingError, UsageError

CONFIG = config_path('mask_rcnn_fishnet150_fpn_coco.py')
PURE_PYTHON = Path(__file__).parent / 'pure_python'
FISHNET = str(PURE_PYTHON / 'retinanet_fishnet.py')


def test_the_work_dir_is_named_after_the_config_unless_given():
    assert load_config(CONFIG).work_dir == 'work_dirs/mask_rcnn_fishnet150_fpn_coco'
    assert load_config(CONFIG, work_dir='elsewhere').work_dir == 'elsewhere'


def test_cfg_options_have_the_last_word_over_data_root(shapes):
    cfg = load_config(
        CONFIG, data_root=str(shapes), cfg_options={'train_dataloader.dataset.data_root': '/b/'}
    )
    assert cfg.train_dataloader.dataset.data_root == '/b/'
    assert cfg.val_dataloader.dataset.data_root == str(shapes)
    assert cfg.val_evaluator.ann_file == f'{shapes}/annotations/instances_val2017.json'


def test_val_fraction_needs_a_data_root():
    with pytest.raises(UsageError, match='--data-root'):
        load_config(CONFIG, val_fraction=0.2)


@pytest.mark.parametrize('option', ['init_cfg=None', 'init_cfg.checkpoint={}'])
def test_cfg_options_start_a_run_from_scratch_or_from_a_file(option, tmp_path):
    file = tmp_path / 'fishnet150.pth'
    file.touch()
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    option = f'model.backbone.{option.format(file)}'
    args = parser.parse_args(['--cfg-options', option])
    cfg = load_config(CONFIG, cfg_options=args.cfg_options)
    expected = None if option.endswith('None') else dict(type='Pretrained', checkpoint=str(file))
    assert cfg.model.backbone.init_cfg == expected
    with pytest.raises(MissingDataError):
        run_train(cfg)


def test_out_must_name_a_pickle():
    with pytest.raises(UsageError, match=r'results\.json'):
        run_test(Config(dict(launcher='none')), 'checkpoint.pth', out='results.json')


@pytest.mark.slow
def test_signals_are_handled_as_before_after_a_training_that_failed(shapes, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    options = {'optim_wrapper.optimizer.lr': 1e12}
    cfg = load_config(FISHNET, data_root=str(shapes), work_dir=str(tmp_path), cfg_options=options)
    with pytest.raises(TrainingError, match=r'(?i)nan|inf'):
        run_train(cfg)
    assert [signal.getsignal(number) for number in SIGNALS] == before

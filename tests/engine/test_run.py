"""From a config to a run: options of the command line, and checks before anything is built."""

import argparse
import json
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfish import config_path
from mmfish.cli import add_run_arguments
from mmfish.engine.check import check_training
from mmfish.engine.fault_tolerance.stopping import SIGNALS
from mmfish.engine.prepare import prepare_training
from mmfish.engine.run import load_config, run_test, run_train
from mmfish.errors import (
    CheckpointError,
    DataError,
    MissingDataError,
    TrainingError,
    UsageError,
)

CONFIG = config_path('mask_rcnn_fishnet150_fpn_coco.py')
PURE_PYTHON = Path(__file__).parent / 'pure_python'
FISHNET = str(PURE_PYTHON / 'retinanet_fishnet.py')
RESNET = str(PURE_PYTHON / 'retinanet_resnet.py')


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


def test_missing_weights_are_named_with_what_to_do(tmp_path):
    name = str(tmp_path / 'fishnet99.pth')
    cfg = load_config(CONFIG, cfg_options={'model.backbone.init_cfg.checkpoint': name})
    with pytest.raises(CheckpointError, match=r'fishnet99\.pth.*checkpoint=FILE.*init_cfg=None'):
        run_train(cfg)


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


def resnet(shapes, tmp_path, **options):
    """The config of a run of a detector without FishNet."""
    cfg = load_config(RESNET, data_root=str(shapes), work_dir=str(tmp_path), cfg_options=options)
    prepare_training(cfg)
    return cfg


@pytest.mark.parametrize(
    'checkpoint',
    [
        'torchvision://resnet18',
        'openmmlab://detectron2/resnet50_caffe',
        'mmcls://resnet50_v1b',
        'http://127.0.0.1:9/weights.pth',
    ],
)
def test_weights_of_other_models_are_left_to_mmengine(checkpoint, shapes, tmp_path):
    options = {
        'load_from': checkpoint,
        'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=checkpoint),
    }
    check_training(resnet(shapes, tmp_path, **options))


def test_weight_files_of_other_models_must_exist_and_are_not_read(shapes, tmp_path):
    file = tmp_path / 'swin.pth'
    options = {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=str(file))}
    with pytest.raises(CheckpointError, match=r'swin\.pth, and there is no such file'):
        check_training(resnet(shapes, tmp_path, **options))
    torch.save(dict(model={}), file)
    check_training(resnet(shapes, tmp_path, **options, load_from=str(file)))


def test_weights_of_a_fishnet_in_a_student_are_checked(shapes, tmp_path):
    cfg = load_config(FISHNET, data_root=str(shapes), work_dir=str(tmp_path))
    cfg.model.backbone.type = 'mmfish.FishNet'
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    cfg.model = dict(type='SoftTeacher', detector=cfg.model)
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='holds no FishNet'):
        check_training(cfg)


@pytest.mark.parametrize(
    ('variables', 'error'),
    [
        (dict(), DataError),
        (dict(RANK='8', LOCAL_RANK='0'), DataError),
        (dict(RANK='9', LOCAL_RANK='1'), json.JSONDecodeError),
        (dict(SLURM_PROCID='9', SLURM_LOCALID='1'), json.JSONDecodeError),
    ],
)
def test_the_first_rank_of_each_machine_checks_before_anything_is_built(
    variables, error, shapes, tmp_path, monkeypatch
):
    """The other ranks do not check: they get as far as MMDetection's own reader."""
    for name in ('LOCAL_RANK', 'SLURM_LOCALID', 'OMPI_COMM_WORLD_LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / 'broken.json').write_text('no JSON')
    options = {'train_dataloader.dataset.ann_file': str(tmp_path / 'broken.json')}
    work_dir = tmp_path / 'run'
    cfg = load_config(RESNET, data_root=str(shapes), work_dir=str(work_dir), cfg_options=options)
    with pytest.raises(error):
        run_train(cfg)
    assert work_dir.exists() is (error is not DataError)


def test_signals_are_handled_as_before_after_a_training_that_failed(shapes, tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    options = {'optim_wrapper.optimizer.lr': 1e12}
    cfg = load_config(FISHNET, data_root=str(shapes), work_dir=str(tmp_path), cfg_options=options)
    with pytest.raises(TrainingError, match=r'(?i)nan|inf'):
        run_train(cfg)
    assert [signal.getsignal(number) for number in SIGNALS] == before

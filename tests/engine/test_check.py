"""Checks of a config and its files before anything is built."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmfish import config_path
from mmfish.engine.check import check_fsdp_checkpoints, check_training, check_weights
from mmfish.engine.prepare import prepare_training
from mmfish.engine.run import load_config, run_train
from mmfish.errors import CheckpointError, ConfigError, DataError

PURE_PYTHON = Path(__file__).parent / 'pure_python'
FISHNET = str(PURE_PYTHON / 'retinanet_fishnet.py')
RESNET = str(PURE_PYTHON / 'retinanet_resnet.py')


def test_missing_weights_are_named_with_what_to_do(tmp_path):
    name = str(tmp_path / 'fishnet99.pth')
    cfg = load_config(
        config_path('mask_rcnn_fishnet150_fpn_coco.py'),
        cfg_options={'model.backbone.init_cfg.checkpoint': name},
    )
    with pytest.raises(CheckpointError, match=r'fishnet99\.pth.*checkpoint=FILE.*init_cfg=None'):
        check_weights(cfg)


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
    with pytest.raises(CheckpointError, match=r'no file .*swin\.pth'):
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


FSDP = dict(type='FSDPStrategy', model_wrapper=dict(device_id='cpu'))
ONE_FILE = dict(state_dict_type='FULL_STATE_DICT', state_dict_config=dict(rank0_only=True))


@pytest.mark.parametrize(
    'strategy',
    [None, FSDP, dict(FSDP, state_dict_cfg='local'), dict(FSDP, state_dict_cfg=ONE_FILE)],
)
def test_strategies_that_can_save_on_the_cpu_are_not_refused(strategy):
    check_fsdp_checkpoints(Config(dict(strategy=strategy)))


@pytest.mark.parametrize('wanted', ['full', dict(state_dict_config=dict(offload_to_cpu=True))])
def test_fsdp_that_crashes_on_the_cpu_is_refused(wanted):
    with pytest.raises(ConfigError, match=r"crash on the CPU.*use 'local'.*FULL_STATE_DICT"):
        check_fsdp_checkpoints(Config(dict(strategy=dict(FSDP, state_dict_cfg=wanted))))

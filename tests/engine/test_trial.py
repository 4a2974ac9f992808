from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import PretrainedInit

from mmfish import config_path
from mmfish.engine.trial import try_model, try_ops
from mmfish.errors import UsageError
from mmfish.models import FishNet

PURE_PYTHON = Path(__file__).parent / 'pure_python' / 'retinanet_resnet.py'


@pytest.mark.slow
def test_a_detector_of_table_3_takes_a_step_without_its_weights():
    cfg = Config.fromfile(config_path('faster_rcnn_fishnet99_fpn_coco.py'))
    parameters, loss = try_model(cfg, size=64)
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'
    with torch.device('meta'):
        net = FishNet('fishnet99', norm_cfg=dict(type='mmfish.FrozenBN'))
    backbone = sum(p.numel() for p in net.parameters())
    # FPN, RPN, and two fully connected layers of 1024 on 7x7x256 with 80 classes and background.
    fpn = sum(c * 256 + 256 for c in (320, 832, 1600, 2112)) + 4 * (256 * 256 * 9 + 256)
    rpn = 256 * 256 * 9 + 256 + (256 + 1) * 3 * (1 + 4)
    box = 256 * 49 * 1024 + 1024 + 1024 * 1024 + 1024 + 1025 * (81 + 80 * 4)
    assert parameters == backbone + fpn + rpn + box
    assert loss > 0


def classifier(**data_preprocessor):
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='mmfish.FishNet',
                    arch='fishnet77',
                    init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'),
                ),
                head=dict(type='mmfish.FishNetClsHead', in_channels=528, num_classes=10),
            ),
            data_preprocessor=dict(num_classes=10, **data_preprocessor),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='RandomResizedCrop', scale=64),
                        dict(type='PackInputs'),
                    ]
                )
            ),
        )
    )


def test_a_classifier_takes_a_step_at_the_size_of_its_own_pipeline():
    _, loss = try_model(classifier(mean=[128] * 3, std=[64] * 3))
    assert 0 < loss < 10


def test_a_data_preprocessor_that_makes_the_loss_nan_fails():
    with pytest.raises(UsageError, match='loss of the first step is nan'):
        try_model(classifier(mean=[128] * 3, std=[0] * 3))


def test_another_packages_config_is_an_error():
    with pytest.raises(UsageError, match="mmdet, mmpretrain, got 'mmseg'"):
        try_model(Config(dict(default_scope='mmseg')))


def test_a_pure_python_config_takes_a_step_without_its_weights():
    cfg = Config.fromfile(PURE_PYTHON)
    cfg.model.backbone.init_cfg = dict(type=PretrainedInit, checkpoint='nowhere.pth')
    assert try_model(cfg, size=64).loss > 0


def test_a_model_that_cannot_predict_fails():
    cfg = Config.fromfile(PURE_PYTHON)
    cfg.model.test_cfg.nms = dict(type='nowhere')
    with pytest.raises(NameError, match='nowhere'):
        try_model(cfg, size=64)


def test_an_op_runs_on_the_cpu_and_a_device_without_ops_is_a_sentence():
    try_ops('cpu')
    with pytest.raises(UsageError, match=r'ops of mmcv do not run on meta .*: run `pip install'):
        try_ops('meta')

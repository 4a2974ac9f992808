import pytest
import torch
from mmengine.config import Config

from benchmarks.check_configs import check_config, check_configs
from demo import CONFIGS
from mmfish import config_path
from mmfish.errors import UsageError
from mmfish.models import FishNet

DEMO = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')


def test_a_detector_of_table_3_takes_a_step_without_its_weights():
    cfg = Config.fromfile(config_path('faster_rcnn_fishnet99_fpn_coco.py'))
    parameters, loss = check_config(cfg, size=64)
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
    _, loss = check_config(classifier(mean=[128] * 3, std=[64] * 3))
    assert 0 < loss < 10


def test_a_data_preprocessor_that_makes_the_loss_nan_fails():
    with pytest.raises(UsageError, match='loss of the first step is nan'):
        check_config(classifier(mean=[128] * 3, std=[0] * 3))


def test_each_config_gets_a_line_and_failures_are_counted(tmp_path, capsys):
    broken = tmp_path / 'broken.py'
    broken.write_text(f"_base_ = '{DEMO}'\nmodel = dict(neck=dict(in_channels=[1, 2, 3, 4]))")
    with pytest.raises(UsageError, match='1 of 3 configs failed'):
        check_configs([DEMO, broken, DEMO], size=64)
    first, second, third = capsys.readouterr().out.splitlines()
    assert 'fishnet77_fpn_shapes.py' in first
    assert 'parameters  loss' in first
    assert 'broken.py' in second
    assert 'FAILED: RuntimeError: ' in second
    assert first == third


def test_another_packages_config_is_an_error():
    with pytest.raises(UsageError, match="mmdet, mmpretrain, got 'mmseg'"):
        check_config(Config(dict(default_scope='mmseg')))

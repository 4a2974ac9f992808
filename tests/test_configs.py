"""The configs of table 3 have the paper's recipe."""

from functools import cache

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.paper_tables import TOLERANCE
from benchmarks.published import load_published
from mmfish.config.paths import config_path, read_config
from mmfish.models import FrozenBN

BACKBONES = ('r50', 'x50_32x4d', 'fishnet150')
MORE = ('fishnet99', 'fishnet201', 'fishnext150')
DETECTORS = ('mask_rcnn', 'faster_rcnn')
CELLS = [f'{detector}_{backbone}' for detector in DETECTORS for backbone in BACKBONES]


@cache
def load(name):
    return Config.fromfile(config_path(f'{name}_fpn_coco.py'))


def settings(name):
    """All settings of a config by their dotted names."""

    def leaves(value, prefix):
        if isinstance(value, dict):
            for key in value:
                yield from leaves(value[key], f'{prefix}{key}.')
        elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
            for i, item in enumerate(value):
                yield from leaves(item, f'{prefix}{i}.')
        else:
            yield prefix[:-1], value

    return dict(leaves(load(name).to_dict(), ''))


def differences(one, other):
    one, other = settings(one), settings(other)
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('backbone', ['r50', 'x50_32x4d', *MORE])
def test_configs_of_a_detector_differ_in_the_backbone_and_the_necks_input(detector, backbone):
    allowed = {'type', 'arch', 'depth', 'groups', 'base_width', 'init_cfg.checkpoint'}
    allowed = {f'model.backbone.{key}' for key in allowed} | {'model.neck.in_channels'}
    found = differences(f'{detector}_fishnet150', f'{detector}_{backbone}')
    found = {key for key in found if not key.startswith('expected_metrics')}
    assert {'model.backbone.init_cfg.checkpoint'} < found <= allowed


@pytest.mark.parametrize('backbone', BACKBONES + MORE)
def test_faster_and_mask_rcnn_differ_in_what_masks_need(backbone):
    found = differences(f'mask_rcnn_{backbone}', f'faster_rcnn_{backbone}')
    needed = {
        'model.type',
        'model.data_preprocessor.pad_mask',
        'model.train_cfg.rcnn.mask_size',
        'model.test_cfg.rcnn.mask_thr_binary',
        *(f'{split}_evaluator.{key}' for split in ('val', 'test') for key in ('type', 'metric')),
    }
    found = {key for key in found if not key.startswith('expected_metrics')}
    rest = {key for key in found - needed if not key.startswith('model.roi_head.mask_')}
    assert needed <= found
    assert {key.rsplit('.', 1)[1] for key in rest} == {'with_mask'}


@pytest.mark.parametrize('name', [*CELLS, 'htc_fishnext229'])
def test_configs_have_no_top_level_settings_that_mmdetection_lacks(name):
    base = read_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    # MMDetection's own configs with other schedules have the first two.
    added = {'custom_hooks', 'max_epochs', 'expected_metrics'}
    assert load(name).keys() - base.keys() <= added


def test_expected_are_the_published_aps_and_no_others():
    rows = {
        run: row['published']
        for row in load_published()['tables']['Table 3']['rows']
        for run in row['runs']
    }
    for detector in DETECTORS:
        for backbone in BACKBONES + MORE:
            name = f'{detector}_{backbone}'
            published = rows.get(f'{name}_fpn_coco')
            expected = {}
            if published:
                masks, boxes, fpn = published[::4]
                boxes = fpn if detector == 'faster_rcnn' else boxes
                aps = {'coco/bbox_mAP': boxes}
                if detector == 'mask_rcnn':
                    aps['coco/segm_mAP'] = masks
                expected = {
                    metric: [round(ap - TOLERANCE, 1) / 100, round(ap + TOLERANCE, 1) / 100]
                    for metric, ap in aps.items()
                }
            found = load(name).get('expected_metrics') or {}
            assert found.keys() == expected.keys()
            for metric, band in expected.items():
                assert found[metric] == pytest.approx(band)


@pytest.mark.parametrize('cell', CELLS)
def test_the_recipe_is_that_of_section_4_4(cell):
    cfg = load(cell)
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (32, 1)
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
        clip_grad=dict(max_norm=5.0, norm_type=2),
    )
    assert cfg.custom_hooks == [dict(type='mmfish.StopGradClipHook', epoch=2)]
    assert cfg.auto_scale_lr.base_batch_size == 16 * cfg.train_dataloader.batch_size == 16
    train, test = cfg.model.train_cfg, cfg.model.test_cfg
    assert (train.rpn_proposal.max_per_img, test.rpn.max_per_img) == (2000, 1000)
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        steps = {step.type: step for step in pipeline}
        assert steps['Resize'] == dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if 'Flip' in step.type]
    assert steps == [dict(type='RandomFlip', prob=0.5)]
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
        assert loader.dataset.ann_file == f'annotations/instances_{split}2017.json'


def test_the_learning_rate_over_the_epochs():
    cfg, per_epoch = load('mask_rcnn_fishnet150'), 50
    wrapper = build_optim_wrapper(nn.Linear(1, 1), cfg.optim_wrapper)
    warm_up, steps = cfg.param_scheduler
    assert warm_up.convert_to_iter_based
    options = dict(optimizer=wrapper)
    warm_up = PARAM_SCHEDULERS.build(warm_up, default_args={**options, 'epoch_length': per_epoch})
    steps = PARAM_SCHEDULERS.build(steps, default_args=options)
    rates = []
    for _ in range(32):
        for _ in range(per_epoch):
            rates.append(wrapper.get_lr()['lr'][0])
            wrapper.optimizer.step()
            warm_up.step()
        steps.step()
    assert rates[0] == pytest.approx(0.02 * 0.001)
    assert rates[per_epoch // 2] == pytest.approx(0.01, rel=0.05)
    by_epoch = rates[per_epoch::per_epoch]  # from the second epoch on
    assert by_epoch == pytest.approx([0.02] * 19 + [0.002] * 8 + [0.0002] * 4)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_batchnorm_and_the_stem_are_fixed_and_nothing_else(backbone):
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        net = MODELS.build(load(f'mask_rcnn_{backbone}').model.backbone)
    net.train()
    stem = ('stem.',) if backbone.startswith('fish') else ('conv1.', 'bn1.')
    assert not any(isinstance(module, _BatchNorm) for module in net.modules())
    assert any(isinstance(module, FrozenBN) for module in net.modules())
    fixed = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert all(name.startswith(stem) for name in fixed)
    assert len(fixed) == (3 if backbone.startswith('fish') else 1)  # convolutions


@pytest.mark.parametrize('arch', ['fishnet99', 'fishnet150', 'fishnext229'])
def test_weights_come_from_the_public_or_from_our_own_classifier(arch):
    name = f'htc_{arch}' if arch == 'fishnext229' else f'mask_rcnn_{arch}'
    expected = 'pytorchcv://fishnet150'
    if arch != 'fishnet150':
        expected = f'work_dirs/{arch}_imagenet/epoch_100.pth'
    assert load(name).model.backbone.init_cfg == dict(type='Pretrained', checkpoint=expected)


def test_htc_keeps_its_own_schedule_with_fixed_norms_and_early_clipping():
    ours, recipe = load('htc_fishnext229'), load('mask_rcnn_fishnet150')
    assert ours.model.type == 'HybridTaskCascade'
    assert ours.model.backbone.stem == 'residual'
    for key in ('frozen_stages', 'norm_cfg'):
        assert ours.model.backbone[key] == recipe.model.backbone[key]
    for key in ('optimizer', 'clip_grad'):
        assert ours.optim_wrapper[key] == recipe.optim_wrapper[key]
    assert ours.custom_hooks == recipe.custom_hooks
    assert ours.auto_scale_lr.base_batch_size == 16 * ours.train_dataloader.batch_size
    assert ours.train_cfg.max_epochs == 20
    assert ours.train_dataloader.dataset.data_prefix.seg == 'stuffthingmaps/train2017/'

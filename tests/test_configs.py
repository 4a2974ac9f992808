"""The configs of table 3 have the paper's recipe."""

from functools import cache, reduce
from operator import getitem

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.paper_tables import TOLERANCE
from benchmarks.published import load_published
from mmfish.config.paths import config_path, read_config
from mmfish.engine.trial import try_model
from mmfish.models import FrozenBN

BACKBONES = ('r50', 'x50_32x4d', 'fishnet150')
MORE = ('fishnet99', 'fishnet201', 'fishnext150')
DETECTORS = ('mask_rcnn', 'faster_rcnn')
CELLS = [f'{detector}_{backbone}' for detector in DETECTORS for backbone in BACKBONES]

LEGACY_CODER = dict(type='LegacyDeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0])
ROI_ALIGN = dict(type='RoIAlign', sampling_ratio=2, aligned=False)
# The recipe of table 3: "all other hyper-parameters follow Detectron", and MMDetection 1.x, with
# which it was run, followed it too. Below each source what it says.
MODEL = {
    # Detectron and MMDetection 1.x: smooth L1 losses.
    'rpn_head.loss_bbox': dict(type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
    'roi_head.bbox_head.loss_bbox': dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    # Detectron and MMDetection 1.x: two samples for each bin of RoIAlign, and no half-pixel shift.
    'roi_head.bbox_roi_extractor.roi_layer': dict(ROI_ALIGN, output_size=7),
    # Detectron and MMDetection 1.x: the width of a box is x2 - x1 + 1, and anchors are integers.
    'rpn_head.anchor_generator': dict(
        type='LegacyAnchorGenerator',
        center_offset=0.5,
        scales=[8],
        ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64],
    ),
    'rpn_head.bbox_coder': dict(LEGACY_CODER, target_stds=[1.0, 1.0, 1.0, 1.0]),
    'roi_head.bbox_head.bbox_coder': dict(LEGACY_CODER, target_stds=[0.1, 0.1, 0.2, 0.2]),
    # Detectron (straddle 0) and MMDetection 1.x: anchors across the border are left out.
    'train_cfg.rpn.allowed_border': 0,
    # Detectron and MMDetection 1.x: 2000 proposals of each level and of all in training, 1000 in
    # testing, after NMS at 0.7.
    'train_cfg.rpn_proposal': dict(
        nms_pre=2000, max_per_img=2000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
    ),
    'test_cfg.rpn': dict(
        nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
    ),
    # Detectron: a proposal goes to the object that it overlaps most; one with 0.7 of its area in a
    # crowd is left out. Of the thresholds MMDetection 1.x has the same.
    'train_cfg.rcnn.assigner': dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.5,
        min_pos_iou=0.5,
        match_low_quality=False,
        ignore_iof_thr=0.7,
    ),
    # Detectron and MMDetection 1.x: anchors have low-quality matches, and know no crowds.
    'train_cfg.rpn.assigner': dict(
        type='MaxIoUAssigner',
        pos_iou_thr=0.7,
        neg_iou_thr=0.3,
        min_pos_iou=0.3,
        match_low_quality=True,
        ignore_iof_thr=-1,
    ),
    # Detectron and MMDetection 1.x: 256 anchors, half of them positive, and 512 proposals, a
    # quarter; the objects themselves are proposals too.
    'train_cfg.rpn.sampler': dict(
        type='RandomSampler', num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False
    ),
    'train_cfg.rcnn.sampler': dict(
        type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
    ),
    # Detectron and MMDetection 1.x: 100 detections above 0.05, NMS at 0.5.
    'test_cfg.rcnn.score_thr': 0.05,
    'test_cfg.rcnn.nms': dict(type='nms', iou_threshold=0.5),
    'test_cfg.rcnn.max_per_img': 100,
}
# The same for masks, of 28 x 28 pixels, shown where they are above one half.
MASKS = {
    'roi_head.mask_roi_extractor.roi_layer': dict(ROI_ALIGN, output_size=14),
    'train_cfg.rcnn.mask_size': 28,
    'test_cfg.rcnn.mask_thr_binary': 0.5,
}


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


def plain(part):
    """Without the scope that MMEngine notes in dicts of another package's configs."""
    if not isinstance(part, dict):
        return part
    return {key: plain(value) for key, value in part.items() if key != '_scope_'}


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
    assert plain(cfg.optim_wrapper) == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
        clip_grad=dict(max_norm=5.0, norm_type=2),
    )
    assert cfg.custom_hooks == [dict(type='mmfish.StopGradClipHook', epoch=2)]
    assert cfg.auto_scale_lr.base_batch_size == 16 * cfg.train_dataloader.batch_size == 16
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        steps = {step.type: step for step in pipeline}
        assert steps['Resize'] == dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if 'Flip' in step.type]
    assert steps == [dict(type='RandomFlip', prob=0.5)]
    for loader, split in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
        assert loader.dataset.ann_file == f'annotations/instances_{split}2017.json'


@pytest.mark.parametrize('backbone', BACKBONES + MORE)
@pytest.mark.parametrize('detector', DETECTORS)
def test_the_detector_is_that_of_detectron_and_mmdetection_1(detector, backbone):
    model = load(f'{detector}_{backbone}').model
    expected = {**MODEL, **MASKS} if detector == 'mask_rcnn' else MODEL
    found = {name: plain(reduce(getitem, name.split('.'), model)) for name in expected}
    assert found == expected


def test_anchors_have_the_integers_of_the_first_faster_rcnn():
    with DefaultScope.overwrite_default_scope('mmdet'):
        anchors = TASK_UTILS.build(load('faster_rcnn_r50').model.rpn_head.anchor_generator)
    assert all(torch.equal(level, level.round()) for level in anchors.base_anchors)
    # The square of 128 pixels at stride 16, as py-faster-rcnn lists it, with its origin at 0.
    assert anchors.base_anchors[2][1].tolist() == [-56, -56, 71, 71]


def test_proposals_in_crowds_are_left_out_and_the_others_go_to_what_they_overlap_most():
    with DefaultScope.overwrite_default_scope('mmdet'):
        assigner = TASK_UTILS.build(load('mask_rcnn_r50').model.train_cfg.rcnn.assigner)
    objects = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 100, 100], [0, 0, 100, 80]]), labels=torch.tensor([3, 4])
    )
    crowd = InstanceData(bboxes=torch.tensor([[200.0, 0, 300, 100]]))
    proposals = torch.tensor(
        [
            [0.0, 0, 100, 95],  # 0.95 and 0.84: the best that the second object has, too
            [220, 0, 320, 100],  # 0.8 of it in the crowd
            [260, 0, 360, 100],  # 0.4 of it
        ]
    )
    found = assigner.assign(InstanceData(priors=proposals), objects, crowd)
    assert found.gt_inds.tolist() == [1, -1, 0]  # first object, left out, background


@pytest.mark.slow
@pytest.mark.parametrize('detector', DETECTORS)
def test_a_training_step_and_a_prediction_with_the_recipe_work(detector):
    assert try_model(load(f'{detector}_r50')).loss > 0


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
    assert rates[0] == pytest.approx(0.02 / 3)  # Detectron, MMDetection 1.x
    assert rates[per_epoch // 2] == pytest.approx(0.02 * 2 / 3, rel=0.05)
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


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        ('r50', 'torchvision://resnet50.imagenet1k_v2'),
        ('x50_32x4d', 'torchvision://resnext50_32x4d.imagenet1k_v2'),
        ('fishnet99', 'official://fishnet99'),
        ('fishnet150', 'pytorchcv://fishnet150'),
        ('fishnet201', 'official://fishnet201'),
        ('fishnext150', 'work_dirs/fishnext150_imagenet/epoch_100.pth'),
        ('fishnext229', 'work_dirs/fishnext229_imagenet/epoch_100.pth'),
    ],
)
def test_weights_come_from_the_public_or_from_our_own_classifier(backbone, expected):
    detectors = ('htc',) if backbone == 'fishnext229' else DETECTORS
    for detector in detectors:
        init_cfg = load(f'{detector}_{backbone}').model.backbone.init_cfg
        assert init_cfg == dict(type='Pretrained', checkpoint=expected)


def test_htc_keeps_its_own_schedule_with_fixed_norms_and_early_clipping():
    ours, recipe = load('htc_fishnext229'), load('mask_rcnn_fishnet150')
    assert ours.model.type == 'HybridTaskCascade'
    assert ours.model.backbone.stem == 'residual'
    for key in ('frozen_stages', 'norm_cfg'):
        assert ours.model.backbone[key] == recipe.model.backbone[key]
    for key in ('optimizer', 'clip_grad'):
        assert plain(ours.optim_wrapper[key]) == plain(recipe.optim_wrapper[key])
    assert ours.custom_hooks == recipe.custom_hooks
    assert ours.auto_scale_lr.base_batch_size == 16 * ours.train_dataloader.batch_size
    assert ours.train_cfg.max_epochs == 20
    assert ours.train_dataloader.dataset.data_prefix.seg == 'stuffthingmaps/train2017/'

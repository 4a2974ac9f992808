import copy
import logging
import re

import pytest
import torch
from mmdet.models import ResNet
from mmdet.models.layers import FrozenBatchNorm2d
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.model import PretrainedInit
from slow_cases import slow_except
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfish import plug_in
from mmfish.config.paths import read_config
from mmfish.config.plug_in import config_diff
from mmfish.engine.run import load_config
from mmfish.errors import UsageError
from mmfish.models import ARCHS, FishNet

LEVELS = [320, 832, 1600, 2112]
PUBLIC = dict(type='Pretrained', checkpoint='pytorchcv://fishnet150')


def detector(neck=None, **backbone):
    """The smallest config with a ResNet; it is never built as a whole."""
    backbone = dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='x'))
    return Config(dict(default_scope='mmdet', model=dict(backbone=backbone, neck=neck)))


def with_backbone(**options):
    cfg = detector(neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=64))
    cfg.model.backbone.update(options)
    return cfg


@pytest.fixture
def log():
    """What plug_in writes into MMEngine's log, line by line."""
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_backbone_neck_and_nothing_else_change():
    before = read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    untouched = copy.deepcopy(before.to_dict())
    after = plug_in(before)

    assert before.to_dict() == untouched
    assert after.model.backbone == dict(
        type='mmfish.FishNet',
        arch='fishnet150',
        in_channels=3,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        with_cp=False,
        init_cfg=PUBLIC,
    )
    assert after.model.neck.in_channels == LEVELS
    expected = untouched
    expected['model']['backbone'] = after.model.backbone.to_dict()
    expected['model']['neck']['in_channels'] = LEVELS
    assert after.to_dict() == expected


def test_a_path_and_options_of_the_backbone():
    cfg = plug_in(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'fishnet99', frozen_stages=0, init_cfg=None
    )
    assert cfg.model.backbone.frozen_stages == 0
    assert 'init_cfg' not in cfg.model.backbone


def test_image_statistics_are_those_of_the_weights():
    caffe = read_config('mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py')
    assert caffe.model.data_preprocessor.std == [1.0, 1.0, 1.0]
    preprocessor = plug_in(caffe).model.data_preprocessor
    assert preprocessor.bgr_to_rgb
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.pad_mask  # its other settings stay


def test_in_a_semi_supervised_detector():
    path = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    model = plug_in(path).model
    assert model.detector.backbone.type == 'mmfish.FishNet'
    assert model.detector.neck.in_channels == LEVELS
    assert model.data_preprocessor.data_preprocessor.std == [58.395, 57.12, 57.375]


def test_in_a_tracker_the_detectors_backbone_changes_and_its_checkpoint_goes():
    name = 'deepsort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py'
    before = read_config(f'mmdet::deepsort/{name}').model
    after = plug_in(f'mmdet::deepsort/{name}').model
    assert after.detector.backbone.type == 'mmfish.FishNet'
    assert before.detector.init_cfg.type == 'Pretrained'
    assert 'init_cfg' not in after.detector
    assert after.reid == before.reid


# What reads the backbone: a list of necks, necks of one level and of some, heads of several kinds.
READERS = [
    ('libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py', lambda m: m.neck[0], LEVELS),
    ('detr/detr_r50_8xb2-150e_coco.py', lambda m: m.neck, [2112]),
    ('yolof/yolof_r50-c5_8xb8-1x_coco.py', lambda m: m.neck, 2112),
    ('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', lambda m: m.panoptic_head, LEVELS),
    ('rpn/rpn_r50-caffe-c4_1x_coco.py', lambda m: m.rpn_head, 1600),
    ('clrnet/clrnet.py', lambda m: m.neck, LEVELS[:3]),
    ('reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py', lambda m: m.head, 2112),
]
MORE_READERS = [
    ('pafpn/faster-rcnn_r50_pafpn_1x_coco.py', lambda m: m.neck, LEVELS),
    ('nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py', lambda m: m.neck, LEVELS),
    ('centernet/centernet_r18_8xb16-crop512-140e_coco.py', lambda m: m.neck, 2112),
    ('maskformer/maskformer_r50_ms-16xb1-75e_coco.py', lambda m: m.panoptic_head, LEVELS),
    ('regnet/retinanet_regnetx-800MF_fpn_1x_coco.py', lambda m: m.neck, LEVELS),
]


@pytest.mark.parametrize(
    ('config', 'find', 'expected'), slow_except(READERS, READERS + MORE_READERS)
)
def test_each_part_that_reads_the_backbone_gets_its_channels(config, find, expected):
    try:
        before = read_config(f'mmdet::{config}')
    except UsageError:
        pytest.skip(f'this MMDetection does not ship {config}')
    assert find(plug_in(before).model).in_channels == expected


def test_heads_behind_a_neck_keep_their_channels():
    cfg = plug_in('mmdet::htc/htc_r50_fpn_1x_coco.py')
    assert cfg.model.rpn_head.in_channels == 256
    assert cfg.model.roi_head.semantic_head.in_channels == 256


def test_a_shared_head_gets_fishnets_level_projected():
    cfg = plug_in('mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py')
    assert cfg.model.neck == [
        dict(type='mmfish.FishHeadAdapter', in_channels=[1600], out_channels=[1024])
    ]
    assert cfg.model.rpn_head.in_channels == 1024


def test_a_neck_without_channels_to_set_gets_the_old_widths():
    neck = dict(type='SomebodysNeck', depth=3)
    cfg = plug_in(detector(neck))
    adapter = dict(
        type='mmfish.FishHeadAdapter', in_channels=LEVELS, out_channels=[64, 128, 256, 512]
    )
    assert cfg.model.neck == [adapter, neck]


def test_if_another_level_has_the_stride_the_error_names_it():
    path = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'
    with pytest.raises(UsageError, match=r'strides \(16,\).*have \(32,\): pass out_indices=\(2,\)'):
        plug_in(path)
    model = plug_in(path, out_indices=(2,)).model
    assert model.rpn_head.in_channels == 1600
    assert model.roi_head.bbox_roi_extractor.out_channels == 1600
    assert model.roi_head.bbox_head.in_channels == 1600


def test_strides_that_no_level_has_are_refused():
    dilated = with_backbone(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    with pytest.raises(UsageError, match=r'strides \(4, 8, 8, 8\).*have \(4, 8, 16, 32\)$'):
        plug_in(dilated)


def test_heads_that_name_their_level_get_its_channels():
    cfg = detector()
    cfg.model.update(
        pretrained='open-mmlab://resnet18_v1c',
        decode_head=dict(type='UPerHead', in_channels=[64, 128, 256, 512], in_index=[0, 1, 2, 3]),
        auxiliary_head=dict(type='FCNHead', in_channels=256, in_index=2, channels=256),
    )
    model = plug_in(cfg).model
    assert model.decode_head.in_channels == LEVELS
    assert (model.auxiliary_head.in_channels, model.auxiliary_head.channels) == (1600, 256)
    assert 'pretrained' not in model


@pytest.mark.parametrize(
    ('config', 'reason'),
    [
        ('tridentnet/tridentnet_r50-caffe_1x_coco.py', 'TridentResNet: .*trident blocks'),
        ('detectors/cascade-rcnn_r50-rfp_1x_coco.py', 'RFP: .*recursive'),
        ('yolox/yolox_s_8xb8-300e_coco.py', 'no ResNet-like backbone.*found CSPDarknet'),
    ],
)
def test_a_detector_that_cannot_take_fishnet_is_refused_with_the_reason(config, reason):
    with pytest.raises(UsageError, match=reason):
        plug_in(f'mmdet::{config}')


def test_a_backbone_may_be_given_as_a_class():
    cfg = with_backbone(type=ResNet)
    assert plug_in(cfg).model.backbone.type == 'mmfish.FishNet'


def test_a_config_without_a_working_backbone_is_refused(tmp_path):
    broken = tmp_path / 'broken.py'
    broken.write_text('model = = 1')
    for cfg, match in (
        (dict(model=dict(backbone=dict(type='ResNet'))), 'expected a Config .* got a dict'),
        (broken, 'broken.py cannot be read as a config: .*line 1'),
        (with_backbone(depth=51), 'the ResNet that .* cannot be built itself: .*invalid depth 51'),
    ):
        with pytest.raises(UsageError, match=match):
            plug_in(cfg)


def test_features_that_fishnet_lacks_are_removed_and_logged(log):
    cfg = with_backbone(
        dcn=dict(type='DCNv2', deform_groups=1), stage_with_dcn=(False, True, True, True)
    )
    cfg = plug_in(cfg)
    assert 'dcn' not in cfg.model.backbone
    assert log == [
        'model.backbone: the ResNet of this config has dcn, which FishNet does not have: left out'
    ]


def test_if_all_of_resnet_was_frozen_all_of_fishnet_is():
    backbone = plug_in(with_backbone(frozen_stages=4)).model.backbone
    with torch.device('meta'):
        fish = FishNet(**{k: v for k, v in backbone.items() if k not in ('type', 'init_cfg')})
    assert not any(p.requires_grad for p in fish.parameters())


@pytest.mark.parametrize('kind', ['GN', nn.GroupNorm])
def test_groups_fit_fishnets_channels_and_public_weights_need_batch_norm(kind, log):
    cfg = with_backbone(norm_cfg=dict(type=kind, num_groups=32))
    backbone = plug_in(cfg).model.backbone
    assert backbone.norm_cfg == dict(type=kind, num_groups=16)
    assert 'init_cfg' not in backbone
    assert '16 groups instead of 32' in log[0]
    assert 'public weights of fishnet150 do not fit' in log[1]
    assert 'BatchNorm' not in log[1]


def test_with_weights_what_was_fixed_stays_fixed_and_nothing_is_logged(log):
    fixed = dict(frozen_stages=1, norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False))
    own = dict(type=PretrainedInit, checkpoint='fishnet99.pth')
    for arch, options in (('fishnet150', {}), ('fishnet99', dict(init_cfg=own))):
        backbone = plug_in(with_backbone(**fixed), arch, **options).model.backbone
        assert {key: backbone[key] for key in fixed} == fixed
    assert log == []


RELEASED = dict(fishnet99='fishnet99_ckpt.tar', fishnet201='fishnet201_ckpt_welltrain.tar')


@pytest.mark.parametrize(
    'arch', slow_except(['fishnet99'], sorted(ARCHS.keys() - {'fishnet150', 'fishnet55'}))
)
def test_without_weights_all_of_fishnet_learns_and_the_log_says_why(
    arch, log, tmp_path, monkeypatch
):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cfg = plug_in(with_backbone(frozen_stages=1), arch)
    backbone = cfg.model.backbone
    assert 'init_cfg' not in backbone
    assert (backbone.frozen_stages, backbone.norm_eval) == (-1, False)
    (line,) = log
    if arch in RELEASED:
        reason = f'the public weights of {arch} are not on this machine (download https://'
        assert f'/{RELEASED[arch]} with a browser and put it into {tmp_path}/hub' in line
    else:
        reason = (
            f'there are public weights of fishnet99, fishnet150, fishnet201 only, not of {arch}'
        )
    assert f'random weights, because {reason}' in line
    assert 'frozen_stages=-1 instead of 1, norm_eval=False instead of True' in line


@pytest.mark.parametrize('arch', RELEASED)
def test_the_authors_weights_are_taken_where_they_are_on_the_machine(
    arch, log, tmp_path, monkeypatch
):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    file = tmp_path / 'hub' / 'checkpoints' / RELEASED[arch]
    file.parent.mkdir(parents=True)
    file.touch()
    backbone = plug_in(with_backbone(frozen_stages=1), arch).model.backbone
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=f'official://{arch}')
    assert backbone.frozen_stages == 1
    assert log == []
    assert 'init_cfg' not in plug_in(with_backbone(), arch, in_channels=1).model.backbone
    assert f'public weights of {arch} do not fit' in log[0]


@pytest.mark.parametrize(
    'norm_cfg',
    [
        dict(type='FrozenBN'),
        dict(type='mmfish.FrozenBN', eps=1e-3),
        dict(type=FrozenBatchNorm2d),
        dict(type='BN', requires_grad=False),
        dict(type='SyncBN', requires_grad=False),
    ],
)
def test_without_weights_fixed_norm_layers_become_trainable(norm_cfg, log):
    backbone = plug_in(with_backbone(norm_cfg=norm_cfg), 'fishnet77').model.backbone
    with torch.device('meta'):
        fish = FishNet(**{k: v for k, v in backbone.items() if k != 'type'}).train()
    norms = [m for m in fish.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert all(m.training and m.weight.requires_grad for m in norms)
    assert all(m.eps == norm_cfg.get('eps', 1e-5) for m in norms)
    assert backbone.norm_cfg.type == ('SyncBN' if norm_cfg['type'] == 'SyncBN' else 'BN')
    assert f'instead of {norm_cfg!r}' in log[0]


def test_options_of_the_caller_stay_without_weights(log):
    given = dict(frozen_stages=0, norm_eval=True, norm_cfg=dict(type='mmfish.FrozenBN'))
    backbone = plug_in(with_backbone(), 'fishnet99', init_cfg=None, **given).model.backbone
    assert {key: backbone[key] for key in given} == given
    assert 'random weights, because its init_cfg names none' in log[0]
    assert 'instead of' not in log[0]


def test_the_norm_layers_that_the_log_suggests_work(log):
    cfg = Config(dict(model=dict(detector=with_backbone().model)))
    cfg = plug_in(cfg, 'fishnet77')
    options = re.search(r'GroupNorm \(--cfg-options (.*?)\)', log[0])[1].split()
    cfg.merge_from_dict(
        {k: DictAction._parse_iterable(v) for k, v in (o.split('=') for o in options)}
    )
    with torch.device('meta'):
        fish = FishNet(**{k: v for k, v in cfg.model.detector.backbone.items() if k != 'type'})
    assert not any(isinstance(m, _BatchNorm) for m in fish.modules())
    assert any(isinstance(m, nn.GroupNorm) for m in fish.modules())
    assert 'model.detector.backbone.norm_cfg.type=SyncBN' in log[0]


def test_the_adapter_starts_at_the_first_level_that_the_neck_reads():
    class LastLevels(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(c, 8, 1) for c in (256, 512)])

        def forward(self, inputs):
            return [conv(x) for conv, x in zip(self.convs, inputs[2:], strict=True)]

    adapter = plug_in(detector(dict(type=LastLevels))).model.neck[0]
    assert adapter.type == 'mmfish.FishHeadAdapter'
    assert adapter.start_level == 2
    assert 'end_level' not in adapter


def test_out_indices_that_the_arch_lacks_are_refused():
    with pytest.raises(UsageError, match=r'levels of 0\.\.2'):
        plug_in(with_backbone(), 'fishnet55')


def test_wrong_options_are_named():
    for options, match in (
        (dict(arch='fishnet42'), "unknown arch 'fishnet42'"),
        (dict(depth=50), 'depth'),
        (dict(down_sample='min'), 'down_sample'),
    ):
        with pytest.raises(UsageError, match=match):
            plug_in(with_backbone(), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    ],
)
def test_families_train_and_predict(config):
    from benchmarks.zoo import try_model

    losses = try_model(plug_in(f'mmdet::{config}', 'fishnet77'), size=128)
    assert losses['loss'] > 0


def test_load_config_plugs_in_before_options_and_names_the_work_dir():
    cfg = load_config(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        backbone='fishnet150',
        cfg_options={'model.backbone.with_cp': True},
    )
    assert cfg.model.backbone.type == 'mmfish.FishNet'
    assert cfg.model.backbone.with_cp
    assert cfg.work_dir == 'work_dirs/retinanet_r50_fpn_1x_coco_fishnet150'


def test_the_diff_shows_what_changed_and_only_that():
    before = with_backbone()
    lines = config_diff(before.pretty_text, plug_in(before).pretty_text).splitlines()
    removed = [line[1:].strip() for line in lines if line[0] == '-']
    added = [line[1:].strip() for line in lines if line[0] == '+']
    assert 'depth=18,' in removed
    assert "arch='fishnet150'," in added
    assert '2112,' in added
    assert not any('default_scope' in line for line in removed + added)

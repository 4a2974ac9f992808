"""A config is checked before its runner is built, and a mistake is named."""

import copy
from functools import cache

import pytest
from mmengine.config import Config, DictAction
from torch import nn

from mmfish import config_path
from mmfish.config.validation import validate_config
from mmfish.errors import ConfigError
from mmfish.models import FishNet

COCO = config_path('faster_rcnn_fishnet99_fpn_coco.py')
IMAGENET = config_path('imagenet/fishnet99_imagenet.py')

CHANNELS77 = [80, 208, 400, 528]

# Which config, what is changed, and what the sentence must say.
REFUSED = {
    'an unknown arch': (COCO, 'backbone.arch=fishnet9000', 'unknown arch .fishnet9000.'),
    'an arch that is a number': (COCO, 'backbone.arch=99', 'arch must be a name or a dict'),
    'an arch of other channels': (
        COCO,
        'backbone.arch=fishnet77',
        r'FPN expects in_channels=\[320, .*fishnet77.*\[80, 208, 400, 528\]',
    ),
    'channels of ResNet': (
        COCO,
        'neck.in_channels=[256,512,1024,2048]',
        r'\[256, 512, 1024, 2048\].*\[320, 832, 1600, 2112\]',
    ),
    'too many levels': (COCO, 'backbone.out_indices=(1,2,3)', r'out_indices=\(1, 2, 3\)'),
    'too few for the neck': (COCO, 'neck.in_channels=[320]', r'in_channels=\[320\]'),
    'a level that is not there': (COCO, 'backbone.out_indices=(0,1,2,4)', r'levels of 0\.\.3'),
    'levels in no order': (COCO, 'backbone.out_indices=(3,2,1,0)', 'rising'),
    'a level in words': (COCO, "backbone.out_indices=('last',)", 'rising'),
    'too many frozen stages': (COCO, 'backbone.frozen_stages=99', r'frozen_stages .*-1\.\.10'),
    'frozen stages in words': (COCO, 'backbone.frozen_stages=all', 'frozen_stages'),
    'an unknown argument': (COCO, 'backbone.depth=50', 'depth'),
    'an unknown stem': (COCO, 'backbone.stem=conv5x5', 'stem must be one of conv3x3'),
    'an unknown norm': (COCO, 'backbone.norm_cfg.type=XN', "norm_cfg=.*'XN'"),
    'groups that do not divide': (
        COCO,
        ['backbone.norm_cfg.type=GN', 'backbone.norm_cfg.num_groups=7'],
        'norm_cfg=.*num_groups',
    ),
    'no image channels': (COCO, 'backbone.in_channels=0', 'in_channels'),
    'a head for another network': (IMAGENET, 'head.in_channels=2048', '2048.*2112'),
}


read = cache(Config.fromfile)


@pytest.mark.parametrize('case', REFUSED)
def test_a_config_is_refused(case):
    config, options, message = REFUSED[case]
    options = [options] if isinstance(options, str) else options
    cfg = copy.deepcopy(read(config))
    changes = dict(option.split('=', 1) for option in options)
    cfg.merge_from_dict(
        {f'model.{key}': DictAction._parse_iterable(value) for key, value in changes.items()}
    )
    with pytest.raises(ConfigError, match=message) as error:
        validate_config(cfg)
    assert '\n' not in str(error.value)


def judged(neck, arch='fishnet77', **model):
    """Validate a detector with a neck."""
    backbone = dict(type='mmfish.FishNet', arch=arch)
    model = dict(type='RetinaNet', backbone=backbone, neck=neck, **model)
    validate_config(Config(dict(default_scope='mmdet', model=model)))


FISH_FPN = dict(type='mmfish.FishFPN', arch='fishnet77')
MAPPER = dict(type='ChannelMapper', in_channels=[256] * 5, out_channels=8)
FPN77 = dict(type='FPN', in_channels=CHANNELS77, out_channels=256, num_outs=5)


@pytest.mark.parametrize(
    'neck',
    [
        [FISH_FPN, MAPPER],
        [dict(type='mmfish.FishHeadAdapter', in_channels=CHANNELS77, start_level=1), FPN77],
        [FPN77, dict(type='BFP', in_channels=256, num_levels=5)],
        dict(
            type='DilatedEncoder',
            in_channels=528,
            out_channels=64,
            block_mid_channels=32,
            num_residual_blocks=1,
            block_dilations=[2],
        ),
    ],
)
def test_necks_that_fit_pass(neck):
    judged(neck)


@pytest.mark.parametrize(
    ('neck', 'message'),
    [
        (
            dict(type='mmfish.FishFPN'),
            r'neck of type FishFPN expects in_channels=\[320, .*fishnet77.*\[80, 208, 400, 528\]',
        ),
        (
            [FISH_FPN, {**MAPPER, 'in_channels': [256] * 4}],
            r'neck\.1 of type ChannelMapper expects in_channels=\[256, 256, 256, 256\], and '
            r'model\.neck\.0 has levels of \[256, 256, 256, 256, 256\]',
        ),
        (
            [FPN77, dict(type='BFP', in_channels=128, num_levels=5, refine_type='conv')],
            r'neck\.1 of type BFP expects in_channels=128',
        ),
    ],
)
def test_necks_that_do_not_fit_are_named(neck, message):
    with pytest.raises(ConfigError, match=message):
        judged(neck)


class DataDependent(nn.Module):
    """A neck that needs real numbers, so that it cannot run on meta tensors."""

    in_channels = (1, 2, 3)

    def forward(self, inputs):
        return inputs if inputs[0].sum().item() > 0 else inputs[1:]


class MyFishNet(FishNet):
    pass


def test_a_neck_that_cannot_run_on_meta_tensors_passes():
    judged(dict(type=DataDependent))
    judged([dict(type=DataDependent), MAPPER])


@pytest.mark.parametrize('kind', ['FishNet', 'mmfish.models.FishNet', FishNet, MyFishNet])
def test_fishnet_is_found_however_and_wherever_it_is_written(kind):
    backbone = dict(type=kind, arch='fishnet77')
    model = dict(backbone=backbone, neck={**FPN77, 'in_channels': [1, 2, 3, 4]})
    with pytest.raises(ConfigError, match=r'model\.detector\.neck of type FPN'):
        validate_config(Config(dict(model=dict(type='SoftTeacher', detector=model))))


def test_other_backbones_are_not_checked():
    backbone = dict(type='ResNet', depth=18, num_stages='none')
    model = dict(type='RetinaNet', backbone=backbone, neck={**FPN77, 'in_channels': [1]})
    validate_config(Config(dict(default_scope='mmdet', model=model)))


@pytest.mark.parametrize('config', [COCO, IMAGENET, config_path('htc_fishnext229_fpn_coco.py')])
def test_our_own_configs_pass(config):
    validate_config(Config.fromfile(config))


def test_an_adapter_that_several_ranks_cannot_train_is_refused():
    cfg = Config.fromfile(COCO)
    adapter = dict(type='mmfish.FishHeadAdapter', in_channels=cfg.model.neck.in_channels)
    cfg.model.neck = [adapter, {**cfg.model.neck, 'start_level': 1}]
    validate_config(cfg)
    cfg.launcher = 'pytorch'
    with pytest.raises(ConfigError, match=r'neck\.0 .*levels \[0\].*neck\.0\.start_level=1'):
        validate_config(cfg)
    cfg.model.neck[0].start_level = 1
    validate_config(cfg)

"""What backbones return and necks read, found out on the meta device."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmfish.config.levels import Levels, fishnet_on_meta, hosts, levels_of, levels_read, necks_of
from mmfish.config.paths import read_config
from mmfish.errors import ConfigError

LEVELS = Levels((80, 208, 400, 528), (4, 8, 16, 32))
FPN = dict(type='mmdet.FPN', in_channels=list(LEVELS.channels), out_channels=8, num_outs=5)


def test_levels_have_the_channels_and_strides_of_the_backbone():
    fish = fishnet_on_meta(dict(type='mmfish.FishNet', arch='fishnet77', in_channels=1))
    assert all(parameter.is_meta for parameter in fish.parameters())
    assert levels_of(fish, in_channels=1) == LEVELS
    assert Levels.of(LEVELS.tensors()) == LEVELS


def test_options_that_fishnet_does_not_take_are_named():
    with pytest.raises(ConfigError, match='depth'):
        fishnet_on_meta(dict(depth=50))


@pytest.mark.parametrize(
    ('necks', 'read'),
    [
        ([FPN], range(4)),
        ([{**FPN, 'start_level': 1}], range(1, 4)),
        ([dict(type='mmfish.FishHeadAdapter', in_channels=list(LEVELS.channels)), FPN], range(4)),
        ([{**FPN, 'in_channels': [1, 2, 3, 4]}], None),
    ],
)
def test_levels_without_a_gradient_are_not_read(necks, read):
    assert levels_read(necks, LEVELS, MODELS) == read


def test_models_within_models_are_found_by_their_dotted_names():
    path = 'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
    cfg = read_config(f'mmdet::{path}')
    assert hosts(cfg) == {'model.detector': [cfg.model, cfg.model.detector]}
    assert hosts(Config(dict())) == {}


@pytest.mark.parametrize(('neck', 'expected'), [(None, []), (FPN, [FPN]), ([FPN, FPN], [FPN, FPN])])
def test_necks_are_a_list_however_they_are_written(neck, expected):
    assert necks_of(dict(neck=neck)) == expected

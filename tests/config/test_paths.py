"""Configs are found by their names, in mmfish and in other packages."""

from pathlib import Path

import pytest

from mmfish.config.paths import config_folder, config_path, read_config
from mmfish.errors import UsageError


def test_every_config_is_found_by_its_name():
    configs = sorted(config_folder().rglob('*.py'))
    assert configs
    for file in configs:
        name = file.relative_to(config_folder()).as_posix()
        assert Path(config_path(name)) == file.resolve()


def test_a_misspelt_name_is_answered_with_the_right_one():
    name = 'mask_rcnn_fishnet150_fpn_coco.py'
    with pytest.raises(FileNotFoundError, match=f"no config 'mask_rcnn_fish150.py' .* {name}"):
        config_path('mask_rcnn_fish150.py')


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(FileNotFoundError, match=r'there are .*mask_rcnn_fishnet150_fpn_coco.py'):
        config_path('zzz')


def test_a_config_is_read_from_a_file_or_from_a_package():
    name = 'mask_rcnn_fishnet150_fpn_coco.py'
    assert read_config(config_path(name)).model.type == 'MaskRCNN'
    path = 'retinanet/retinanet_r50_fpn_1x_coco.py'
    assert read_config(f'mmdet::{path}').filename.endswith(path)


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ('mmdet::retinanet/retinanet.py', 'no config .*configs/retinanet/retinanet.py'),
        ('nosuchpackage::retinanet.py', 'package nosuchpackage that is not installed'),
        ('nosuchfile.py', 'no config nosuchfile.py'),
    ],
)
def test_a_missing_config_is_named(config, message):
    with pytest.raises(UsageError, match=message):
        read_config(config)

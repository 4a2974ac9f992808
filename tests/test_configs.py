from pathlib import Path

import pytest

from mmfish.configs import config_folder, config_path


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


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(FileNotFoundError, match=r'there are .*mask_rcnn_fishnet150_fpn_coco.py'):
        config_path('zzz')

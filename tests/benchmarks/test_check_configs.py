import pytest

from benchmarks.check_configs import check_configs
from demo import CONFIGS
from mmfish.errors import UsageError

DEMO = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')


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

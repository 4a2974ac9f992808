import runpy
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'print_config.py'
CONFIG = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'


def test_the_config_and_a_diff_are_printed(monkeypatch, capsys):
    arguments = [CONFIG, '--backbone', 'fishnet150', '--cfg-options', 'model.neck.num_outs=6']
    monkeypatch.setattr('sys.argv', [str(TOOL), *arguments])
    runpy.run_path(str(TOOL), run_name='__main__')
    result, _, diff = capsys.readouterr().out.partition(f'\n--- {CONFIG}')
    assert "type='mmfish.FishNet'" in result
    assert 'num_outs=6' in result
    changed = [line for line in diff.splitlines() if line[:1] in '+-']
    assert any("type='mmfish.FishNet'" in line for line in changed)
    assert any('num_outs=6' in line for line in changed)
    assert not any('bbox_head' in line for line in changed)

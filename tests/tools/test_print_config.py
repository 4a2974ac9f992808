import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'print_config.py'


def test_the_result_and_what_changed_are_printed():
    command = [sys.executable, TOOL, 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py']
    command += ['--backbone', 'fishnet150', '--cfg-options', 'model.neck.num_outs=6']
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    result, _, diff = process.stdout.partition('\n--- ')
    assert "type='mmfish.FishNet'" in result
    assert 'num_outs=6' in result
    changed = [line for line in diff.splitlines() if line[:1] in '+-']
    assert any("type='mmfish.FishNet'" in line for line in changed)
    assert any('num_outs=6' in line for line in changed)
    assert not any('bbox_head' in line for line in changed)

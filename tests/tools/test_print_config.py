import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'print_config.py'


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *arguments], capture_output=True, text=True, check=False
    )


def test_the_result_and_what_changed_are_printed():
    process = run(
        *('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--backbone', 'fishnet150'),
        *('--cfg-options', 'model.neck.num_outs=6'),
    )
    assert process.returncode == 0, process.stderr
    result, _, diff = process.stdout.partition('\n--- ')
    assert "type='mmfish.FishNet'" in result
    assert 'num_outs=6' in result
    changed = [line for line in diff.splitlines() if line[:1] in '+-']
    assert any("type='mmfish.FishNet'" in line for line in changed)
    assert any('num_outs=6' in line for line in changed)
    assert not any('work_dir' in line for line in changed)


def test_what_cannot_be_done_is_a_sentence():
    process = run('mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py', '--backbone', 'fishnet150')
    assert process.returncode == 1
    assert 'trident blocks' in process.stderr
    assert 'Traceback' not in process.stderr

"""The tools do not repeat other packages' notices about packages that nobody needs."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTICES = ('Could not import OneDL', 'faster_coco_eval is not installed')


def output_of(*arguments):
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'get_flops.py'])
def test_a_tool_prints_only_what_it_has_to_say(tool):
    output = output_of(str(Path(__file__).parents[1] / 'tools' / tool), '--help')
    assert output.startswith('usage: ')
    assert not any(notice in output for notice in NOTICES)


def test_an_import_of_mmfish_changes_nothing_about_what_others_print():
    program = 'import mmdet.datasets, mmdet.evaluation, mmpretrain.datasets'
    assert output_of('-c', f'import mmfish, {program[7:]}') == output_of('-c', program)


def test_what_else_is_printed_or_warned_of_meanwhile_is_passed_on(tmp_path):
    for name in ('mmdet', 'mmpretrain'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').touch()
    (tmp_path / 'mmdet/datasets.py').write_text("print('Could not import OneDL.'); print('kept')")
    (tmp_path / 'mmdet/evaluation.py').write_text(
        "import warnings\nwarnings.warn('faster_coco_eval is not installed')\nwarnings.warn('kept')"
    )
    (tmp_path / 'mmpretrain/datasets.py').touch()
    quiet = Path(__file__).parents[1] / 'mmfish' / 'quiet.py'
    program = f'import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); '
    output = output_of('-c', f'{program}runpy.run_path({str(quiet)!r})')
    assert output.startswith('kept\n')
    assert 'UserWarning: kept' in output
    assert not any(notice in output for notice in NOTICES)

"""The tools leave out other packages' notices that an optional package is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

NOTICES = ('Could not import OneDL', 'faster_coco_eval is not installed')


def output_of(*arguments):
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return process.stdout + process.stderr


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'get_flops.py'])
def test_a_tool_prints_no_notices_of_other_packages(tool):
    output = output_of(str(Path(__file__).parents[1] / 'tools' / tool), '--help')
    assert output.startswith('usage: ')
    assert not any(notice in output for notice in NOTICES)


def test_importing_mmfish_silences_no_other_package():
    program = 'import mmdet.datasets, mmdet.evaluation, mmpretrain.datasets'
    assert output_of('-c', f'import mmfish, {program[7:]}') == output_of('-c', program)


def test_other_output_and_warnings_are_kept(tmp_path):
    (tmp_path / 'talkative.py').write_text(
        'import warnings\n'
        "print('Could not import OneDL.')\n"
        "print('kept')\n"
        "warnings.warn('faster_coco_eval is not installed')\n"
        "warnings.warn('kept')\n"
    )
    output = output_of(
        '-c',
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'import mmfish.notices; mmfish.notices.import_without_notices(["talkative"])',
    )
    assert 'kept\n' in output
    assert 'UserWarning: kept' in output
    assert not any(notice in output for notice in NOTICES)

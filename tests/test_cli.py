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
        'import mmfish.cli; mmfish.cli.import_without_notices(["talkative"])',
    )
    assert 'kept\n' in output
    assert 'UserWarning: kept' in output
    assert not any(notice in output for notice in NOTICES)

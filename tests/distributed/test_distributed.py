"""One run each: several ranks, two hosts, killed. The commands beside this file do more."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run(name, *arguments):
    command = [sys.executable, Path(__file__).with_name(name), *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize('arguments', ['2 --images 9', '2 --hosts 2 --images 8'])
def test_several_ranks_see_all_images_and_predict_what_one_process_predicts(arguments):
    output = run('ranks.py', *arguments.split())
    for found in ('once over all ranks', 'identical weights', 'learning rate', 'to the last bit'):
        assert found in output


def test_a_killed_and_resumed_run_ends_like_one_that_was_not_killed():
    assert run('kills.py', '--kills', '1').endswith('1 of 1 identical\n')

"""Several ranks, two hosts and a kill, each once; the commands beside this file do more."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(name, *arguments):
    command = [sys.executable, Path(__file__).with_name(name), *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


@pytest.mark.parametrize('arguments', ['2 --images 9', '2 --hosts 2 --images 8'])
def test_all_ranks_together_do_what_one_process_would(arguments):
    *_, images, weights, rate, predictions = run('ranks.py', *arguments.split()).splitlines()
    assert 'once over all ranks' in images
    assert 'identical weights' in weights
    assert 'learning rate' in rate
    assert 'to the last bit' in predictions


def test_a_killed_run_ends_as_if_it_had_been_left_alone():
    assert run('kills.py', '--kills', '1').endswith('1 of 1 identical\n')

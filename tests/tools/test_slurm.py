"""The Slurm scripts, with a stand-in for srun that shows what it was asked for."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def srun(tmp_path):
    """Call a script and return the words after srun."""
    stand_in = tmp_path / 'srun'
    stand_in.write_text('#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done\n')
    stand_in.chmod(0o755)

    def call(script, *arguments, **variables):
        environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', **variables}
        command = [TOOLS / script, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=True
        ).stdout.splitlines()

    return call


def test_training_asks_slurm_for_the_gpus_and_passes_arguments_on(srun):
    words = srun(
        *('slurm_train.sh', 'partition', 'job', 'config.py', 'work dir', '--resume'),
        **dict(GPUS='16', GPUS_PER_NODE='4', SRUN_ARGS='--qos=high --time=1-0', PYTHON='python3'),
    )
    expected = f"""--partition=partition --job-name=job --gres=gpu:4 --ntasks=16 --ntasks-per-node=4
        --cpus-per-task=5 --kill-on-bad-exit=1 --qos=high --time=1-0 python3 -u {TOOLS}/train.py
        config.py --work-dir 'work dir' --launcher slurm --resume"""
    assert words == shlex.split(expected)


def test_testing_does_so_with_a_checkpoint(srun):
    words = srun('slurm_test.sh', 'partition', 'job', 'config.py', 'a.pth', PYTHON='python3')
    expected = f'python3 -u {TOOLS}/test.py config.py a.pth --launcher slurm'
    assert words[-7:] == shlex.split(expected)


@pytest.mark.parametrize(
    'script', ['slurm_train.sh', 'slurm_test.sh', 'dist_train.sh', 'reproduce_table3.sh']
)
def test_a_call_without_arguments_shows_the_usage(script):
    process = subprocess.run([TOOLS / script], capture_output=True, text=True)
    assert process.returncode != 0
    assert f'usage: {TOOLS / script} ' in process.stderr

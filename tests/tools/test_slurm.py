"""The Slurm scripts, with a stand-in for srun that prints its arguments."""

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
        --cpus-per-task=5 --signal=USR1@120 --qos=high --time=1-0 --kill-on-bad-exit=1
        python3 -u {TOOLS}/train.py config.py --work-dir 'work dir' --launcher slurm --resume"""
    assert words == shlex.split(expected)


def test_testing_passes_config_and_checkpoint_on(srun):
    words = srun('slurm_test.sh', 'partition', 'job', 'config.py', 'a.pth', PYTHON='python3')
    expected = f'python3 -u {TOOLS}/test.py config.py a.pth --launcher slurm'
    assert words[-7:] == shlex.split(expected)


# Each writes its name and arguments into the file calls. sbatch runs a copy of its script.
STAND_INS = dict(
    srun='[ ! "$STOPPED" ] || touch work/stopped_on_request; exit "${STATUS:-0}"',
    scontrol='',
    sbatch="""
        while [ "${1#--}" != "$1" ]; do shift; done
        cp "$1" spooled; shift
        SLURM_JOB_ID=7 bash spooled "$@"
    """,
)


@pytest.mark.parametrize(
    ('outcome', 'status', 'requeued'),
    [
        (dict(), 0, False),
        (dict(STATUS='1'), 1, False),
        # Slurm kills the other ranks as soon as one has ended, so any status is possible.
        (dict(STATUS='137', STOPPED='1'), 137, True),
    ],
)
def test_a_job_that_was_stopped_by_a_signal_is_requeued_and_resumes(
    tmp_path, outcome, status, requeued
):
    (tmp_path / 'work').mkdir()
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@" >> calls\n{body}\n')
        (tmp_path / name).chmod(0o755)
    process = subprocess.run(
        [TOOLS / 'slurm_train.sh', 'partition', 'job', 'config.py', 'work', '--amp'],
        cwd=tmp_path,
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'REQUEUE': '1', **outcome},
    )
    calls = [line.split() for line in (tmp_path / 'calls').read_text().splitlines()]
    assert process.returncode == status
    assert [call[0] for call in calls] == ['sbatch', 'srun', *['scontrol'] * requeued]
    assert {'--requeue', '--signal=USR1@120', '--partition=partition'} <= set(calls[0])
    assert f'{TOOLS}/train.py' in calls[1]
    assert calls[1][-2:] == ['--amp', '--resume']
    assert calls[2:] == [['scontrol', 'requeue', '7']] * requeued


@pytest.mark.parametrize(
    'script', ['slurm_train.sh', 'slurm_test.sh', 'dist_train.sh', 'reproduce_table3.sh']
)
def test_a_call_without_arguments_shows_the_usage(script):
    process = subprocess.run([TOOLS / script], capture_output=True, text=True)
    assert process.returncode != 0
    assert f'usage: {TOOLS / script} ' in process.stderr

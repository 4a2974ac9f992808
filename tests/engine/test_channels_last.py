"""Channels-last on two ranks: weights are converted before the model is wrapped."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parent / 'pure_python' / 'retinanet_witnessed.py'
TOOLS = Path(__file__).parents[2] / 'tools'


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def run(tool, *arguments):
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PORT': str(free_port()),
        'PYTHONPATH': os.pathsep.join([str(CONFIG.parent), os.environ.get('PYTHONPATH', '')]),
    }
    command = [str(word) for word in (TOOLS / tool, CONFIG, *arguments)]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    output = process.stdout + process.stderr
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The work directory and the output of a training on two ranks."""
    work_dir = tmp_path_factory.mktemp('run')
    return work_dir, run(
        *('dist_train.sh', 2, '--work-dir', work_dir, '--data-root', shapes, '--channels-last')
    )


def test_gradients_are_not_copied_into_another_memory_format(trained):
    work_dir, output = trained
    assert 'Grad strides do not match' not in output
    seen = json.loads((work_dir / 'train.json').read_text())
    assert seen == dict(weights=True, wrapped=True)


def test_testing_has_the_weights_in_channels_last(trained, shapes, tmp_path):
    checkpoint = trained[0] / 'epoch_1.pth'
    arguments = ('--work-dir', tmp_path, '--data-root', shapes, '--channels-last')
    run('dist_test.sh', checkpoint, 2, *arguments)
    seen = json.loads((tmp_path / 'test.json').read_text())
    assert seen == dict(weights=True, wrapped=True)

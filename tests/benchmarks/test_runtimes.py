import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.runtimes import Exported

pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')


class Net(nn.Module):
    def forward(self, image):
        weight = torch.ones(8, 3, 3, 3)
        return nn.functional.max_pool2d(nn.functional.conv2d(image, weight), 2)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp('exported') / 'net.onnx'
    image = torch.zeros(1, 3, 32, 48)
    torch.onnx.export(Net(), (image,), str(file), dynamo=False, input_names=['image'])
    return file


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_a_profile_has_the_operators_of_one_run(file, runtime):
    exported = Exported(file, np.zeros((1, 3, 32, 48), np.float32), [], 1, runtime)
    operators = exported.operators()
    assert any('Conv' in name for name in operators)
    assert any('Pool' in name for name in operators)
    assert all(0 <= seconds < 1 for seconds in operators.values())


def test_streams_take_several_images(file):
    image = np.ones((1, 3, 32, 48), np.float32)
    exported = Exported(file, image, [], 2, 'openvino', streams=2)
    assert exported.images == 4
    exported.load()()


PEAK = """
import numpy as np
from benchmarks.runtimes import peak_rss
before = np.ones(2**25)
print(peak_rss(lambda: lambda: np.ones(2**24).sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='not on Linux')
def test_peak_rss_is_of_what_runs_and_not_of_what_there_was():
    # In a process of its own: the kernel may take pages back from one that has long been there.
    run = subprocess.run([sys.executable, '-c', PEAK], check=True, capture_output=True, text=True)
    assert int(run.stdout.split()[-1]) == pytest.approx(2**27, rel=0.2)

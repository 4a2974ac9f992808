"""mmfish without the parts of Python that only Linux and other Unixes have.

Windows has no ``fcntl`` and no ``resource``, macOS no ``sigwaitinfo`` and neither has ``prctl``.
A process of its own loses all of them before it imports anything, and then builds, plugs in, folds
and predicts.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# ctypes.CDLL(None) is how the C library is reached; Windows has none under that name.
TAKE_AWAY = """
import ctypes, signal, sys

import torch  # what torch itself needs of the platform is not tested here

for module in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
    sys.modules[module] = None
for name in ('SIGUSR1', 'SIGUSR2', 'SIGHUP', 'SIGALRM', 'SIGKILL', 'SIGCHLD', 'Sigmasks',
             'sigwaitinfo', 'sigtimedwait', 'pthread_sigmask', 'pthread_kill', 'setitimer'):
    if hasattr(signal, name):
        delattr(signal, name)

class CDLL(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if name is None:
            raise TypeError('no C library')
        super().__init__(name, *args, **kwargs)

ctypes.CDLL = CDLL
import mmfish
"""
USES = {
    'import': '',
    'every module': """
import importlib, pkgutil

for module in pkgutil.walk_packages(mmfish.__path__, 'mmfish.'):
    importlib.import_module(module.name)
""",
    'backbone and necks': """
from mmfish.registry import MODELS

backbone = MODELS.build(dict(type='FishNet', arch='fishnet77'))
levels = backbone(torch.rand(1, 3, 64, 64))
for neck in (
    dict(type='FishFPN', in_channels=backbone.out_channels, out_channels=16, num_outs=5),
    dict(type='FishHeadAdapter', in_channels=backbone.out_channels),
):
    assert len(MODELS.build(neck)(levels)) == (5 if neck['type'] == 'FishFPN' else 4)
""",
    'plug_in, inference and fuse': """
import warnings

import numpy as np
from mmdet.apis import inference_detector, init_detector

warnings.simplefilter('ignore')
cfg = mmfish.plug_in('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', arch='fishnet77')
cfg.test_dataloader.dataset.pipeline[1].scale = (64, 64)
cfg.model.test_cfg.score_thr = 0.0
model = init_detector(cfg, device='cpu')
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
scores = inference_detector(model, image).pred_instances.scores
fused = inference_detector(mmfish.fuse(model), image).pred_instances.scores
assert len(scores) and torch.allclose(scores, fused, atol=1e-4)
""",
}


@pytest.mark.parametrize('use', USES)
def test_mmfish_works_without_what_only_unix_has(use):
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', f'{TAKE_AWAY}{USES[use]}\nprint("works")'],
        capture_output=True,
        text=True,
    )
    assert run.stdout.endswith('works\n'), run.stderr

"""What runs exported files does what the test pipelines and mask heads do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.models.roi_heads import FCNMaskHead
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image

from mmfish.deploy import Detector, runner
from mmfish.errors import UsageError

PIPELINES = [
    ('mmdet', dict(type='Resize', scale=(100, 60), keep_ratio=True)),
    ('mmdet', dict(type='Resize', scale=(70, 50), keep_ratio=False)),
    ('mmdet', dict(type='Pad', size=(120, 110), pad_val=dict(img=(114, 115, 116)))),
    ('mmdet', dict(type='Pad', size_divisor=32)),
    ('mmdet', dict(type='Pad', pad_to_square=True, pad_val=dict(img=(7, 8, 9)))),
    ('mmpretrain', dict(type='Resize', scale=56)),
    ('mmpretrain', dict(type='ResizeEdge', scale=40, edge='short')),
    (
        'mmpretrain',
        dict(type='ResizeEdge', scale=48, edge='long', backend='pillow', interpolation='bicubic'),
    ),
    ('mmpretrain', dict(type='CenterCrop', crop_size=33)),
    ('mmpretrain', dict(type='CenterCrop', crop_size=90)),
]
DEMO = Path(__file__).resolve().parents[2] / 'demo' / 'shapes_detector.onnx'
SIGNAL_AFTER_TWO = """
import signal, sys
from mmfish.deploy import Detector
first, second = (Detector(sys.argv[1], 'openvino') for _ in range(2))
signal.signal(signal.SIGINT, lambda *_: print('handled'))
del first
del second
signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (75, 93, 3), dtype=np.uint8)


@pytest.mark.parametrize(('scope', 'step'), PIPELINES, ids=str)
def test_an_image_is_prepared_as_by_the_pipeline(scope, step, image):
    with DefaultScope.overwrite_default_scope(scope):
        done = Compose([dict(step)])(dict(img=image[..., ::-1], img_shape=image.shape[:2]))
    prepared, scale = runner.prepare(image, [step])
    np.testing.assert_array_equal(prepared, done['img'][..., ::-1])
    if 'Resize' in step['type']:
        np.testing.assert_allclose(scale, done['scale_factor'])


def test_without_opencv_pillow_resizes_to_one_grey_level(image, monkeypatch):
    step = dict(type='Resize', scale=(60, 44))
    expected = runner.prepare(image, [step])[0]
    monkeypatch.setattr(runner, 'cv2', None)
    found = runner.prepare(image, [step])[0]
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_images_are_read_alike_with_and_without_opencv(image, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(image).save(tmp_path / 'image.png', exif=exif)
    turned = np.rot90(image, -1)
    np.testing.assert_array_equal(runner.read_image(tmp_path / 'image.png'), turned)
    monkeypatch.setattr(runner, 'cv2', None)
    np.testing.assert_array_equal(runner.read_image(tmp_path / 'image.png'), turned)


def test_masks_are_pasted_as_by_the_mask_head():
    torch.manual_seed(0)
    boxes = torch.tensor(
        [[3.2, 5.1, 40.7, 33.3], [-4.0, 10.0, 90.0, 95.5], [20.0, 20.0, 20.4, 21.0]]
    )
    logits = torch.randn(3, 1, 28, 28)
    head = FCNMaskHead(num_classes=1)
    (expected,) = head.predict_by_feat(
        (logits,),
        [InstanceData(bboxes=boxes.clone(), labels=torch.zeros(3, dtype=torch.long))],
        [dict(scale_factor=(1.0, 1.0), ori_shape=(80, 70))],
        ConfigDict(mask_thr_binary=0.5),
        rescale=True,
    )
    for i, mask in enumerate(expected.masks.numpy()):
        found = runner.paste_mask(logits[i, 0].sigmoid().numpy(), boxes[i].numpy(), (80, 70))
        np.testing.assert_array_equal(found >= 0.5, mask)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@pytest.mark.parametrize('content', [b'', b'no model'])
def test_a_damaged_file_is_one_sentence(runtime, content, tmp_path):
    pytest.importorskip(runtime)
    file = tmp_path / 'model.onnx'
    file.write_bytes(content)
    with pytest.raises(UsageError, match=f'{runtime} cannot read .*model.onnx'):
        Detector(file, runtime)


def test_bad_arguments_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match='there is no file'):
        Detector(tmp_path / 'none.onnx')
    (tmp_path / 'model.onnx').touch()
    with pytest.raises(UsageError, match="must be onnxruntime or openvino, got 'tensorrt'"):
        Detector(tmp_path / 'model.onnx', 'tensorrt')
    with pytest.raises(UsageError, match="onnxruntime does not compute in 'bf16': expected"):
        Detector(tmp_path / 'model.onnx', 'onnxruntime', precision='bf16')
    monkeypatch.setattr(runner, 'onnxruntime', None)
    monkeypatch.setattr(runner, 'openvino', None)
    with pytest.raises(UsageError, match='needs the package onnxruntime: `pip install'):
        Detector(tmp_path / 'model.onnx')
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(UsageError, match='cannot be read as an image'):
        runner.read_image(tmp_path / 'text.png')


@pytest.mark.slow
def test_signals_are_handled_when_detectors_of_openvino_are_gone():
    pytest.importorskip('openvino')
    command = [sys.executable, '-c', SIGNAL_AFTER_TWO, DEMO]
    run = subprocess.run(command, cwd=DEMO.parents[1], capture_output=True, text=True)
    assert run.stdout.split() == ['handled'], run

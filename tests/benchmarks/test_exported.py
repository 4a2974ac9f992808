"""A detector's exported files have its AP, and the file that comes with the demo keeps its own."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks.exported import ap_table, average_precision, compare_exported, in_file
from demo.demonstration import CONFIG
from demo.shapes import CLASSES, PALETTE, make_shapes
from mmfish.deploy import Detector
from mmfish.engine.records import RECORD

pytest.importorskip('onnxruntime')

DEMO = Path(__file__).resolve().parents[2] / 'demo'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The beginning of the demo's data set."""
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=400, val=40)


def test_the_demos_picture_is_one_of_its_validation_images(tmp_path):
    drawn = make_shapes(tmp_path / 'shapes', train=1, val=26) / 'val2017' / '000000000026.png'
    np.testing.assert_array_equal(imread(DEMO / 'shapes_picture.png'), imread(drawn))


@pytest.mark.slow
def test_the_demos_file_has_the_ap_of_the_detector_it_was_made_of(data):
    detector = Detector(DEMO / 'shapes_detector.onnx', 'onnxruntime')
    assert detector.classes == list(CLASSES)
    assert detector.metadata['palette'] == [list(colour) for colour in PALETTE]
    ap = average_precision(partial(in_file, detector), data)
    assert ap == pytest.approx(dict(bbox=0.738, segm=0.689), abs=0.003)


@pytest.mark.slow
def test_files_have_the_ap_of_the_detector_that_they_were_made_of(data, tmp_path):
    pytest.importorskip('openvino')
    iterations = 200  # enough for it to find something
    options = [
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={iterations}',
        f'param_scheduler.1.T_max={iterations}',
        f'default_hooks.checkpoint.interval={iterations}',
        'randomness.seed=0',
    ]
    command = [sys.executable, '-m', 'mmfish', 'train', CONFIG, '--data-root', data]
    training = subprocess.run(
        [*command, '--work-dir', tmp_path, '--cfg-options', *options],
        cwd=DEMO.parent,
        capture_output=True,
        text=True,
    )
    assert training.returncode == 0, training.stderr
    measured = compare_exported(tmp_path, data)
    print(f'\n{ap_table(measured)}')
    expected = measured['float32', 'PyTorch']
    assert min(expected.values()) > 0.01
    for (weights, runtime), ap in measured.items():
        if weights.startswith('float32') and 'bf16' not in runtime:
            assert ap == pytest.approx(expected, abs=1e-3)
    # MMDetection's own evaluation has come to the same.
    (record,) = tmp_path.glob(f'*/{RECORD}')
    metrics = json.loads(record.read_text())['metrics']
    for kind, ap in expected.items():
        assert metrics[f'coco/{kind}_mAP'] == pytest.approx(ap, abs=1e-3)

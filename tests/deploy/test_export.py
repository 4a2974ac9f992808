"""A model becomes an ONNX file, and what the file finds is what the model finds."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.datasets import CocoDataset
from mmengine.registry import DefaultScope
from mmpretrain import get_model
from pycocotools import mask as mask_utils
from slow_cases import slow_except
from tiny_detectors import CLASSES, save_model, tiny_config
from torch import nn

import mmfish
from mmfish.cli import main
from mmfish.config.paths import config_path, read_config
from mmfish.deploy import Detector, exporter
from mmfish.deploy.graphs import graph_of
from mmfish.deploy.predict import predict_exported
from mmfish.errors import UsageError
from mmfish.models import FishNet

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
RETINANET = 'retinanet/retinanet_r50_fpn_1x_coco.py'
DETECTORS = [
    (MASK_RCNN, 'resnet18'),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'fishnet77'),
    ('legacy_1.x/mask-rcnn_r50_fpn_1x_coco_v1.py', 'resnet18'),
    (RETINANET, 'fishnet77'),
    (RETINANET, 'resnet18'),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'fishnet77'),  # colours in OpenCV's order
    ('atss/atss_r50_fpn_1x_coco.py', 'fishnet77'),
    ('free_anchor/freeanchor_r50_fpn_1x_coco.py', 'fishnet77'),
    ('fsaf/fsaf_r50_fpn_1x_coco.py', 'fishnet77'),
]
SIZES = [(120, 150), (200, 130), (90, 64)]


@pytest.fixture(scope='module')
def picture(shapes):
    return cv2.imread(str(shapes / 'val2017' / '000000000001.png'))[..., ::-1]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A Mask R-CNN with FishNet."""
    file = tmp_path_factory.mktemp('run') / 'mask_rcnn.pth'
    return save_model(tiny_config(MASK_RCNN, 'fishnet77'), file)


@pytest.fixture(scope='module')
def exported(checkpoint, tmp_path_factory):
    return mmfish.export(checkpoint, tmp_path_factory.mktemp('exported') / 'mask_rcnn.onnx')


def build(checkpoint):
    cfg = exporter.find_model(checkpoint)[0]
    with DefaultScope.overwrite_default_scope('mmdet'):
        return init_detector(cfg, checkpoint, device='cpu')


def check_agreement(file, checkpoint, picture, runtime='onnxruntime'):
    detector = Detector(file, runtime)
    cfg = exporter.find_model(checkpoint)[0]
    inferencer = DetInferencer(cfg, checkpoint, device='cpu', show_progress=False)
    for size in SIZES:
        image = cv2.resize(picture, size)
        found = detector(image)
        expected = inferencer(image[..., ::-1].copy())['predictions'][0]
        assert len(expected['labels']) == len(found['labels']) == 10
        same = 0
        for i, (box, label) in enumerate(zip(expected['bboxes'], expected['labels'], strict=True)):
            far = np.abs(found['boxes'] - box).max(1) + 1000 * (found['labels'] != label)
            j = far.argmin()
            if far[j] > 0.01 or abs(found['scores'][j] - expected['scores'][i]) > 1e-4:
                continue
            same += 1
            if 'masks' in expected:
                mask = mask_utils.decode(expected['masks'][i]).astype(bool)
                assert (mask != found['masks'][j]).mean() < 1e-3
        # With random weights one of many boxes with almost the same score may take another's place.
        assert same >= 9


@pytest.mark.parametrize('runtime', slow_except(['onnxruntime'], ['onnxruntime', 'openvino']))
def test_a_file_finds_what_the_inferencer_finds(exported, checkpoint, picture, runtime):
    pytest.importorskip(runtime)
    check_agreement(exported, checkpoint, picture, runtime)


def mask_of(result):
    return mask_utils.decode([result['segmentation']])


@pytest.mark.slow
def test_the_command_predicts_with_a_file_what_it_predicts_with_a_checkpoint(
    exported, checkpoint, picture, tmp_path, monkeypatch
):
    for i, size in enumerate(SIZES):
        cv2.imwrite(str(tmp_path / f'{i}.png'), cv2.resize(picture, size)[..., ::-1])
    inputs = [str(tmp_path / f'{i}.png') for i in range(len(SIZES))]
    results = {}
    for model in (checkpoint, str(exported)):
        out = tmp_path / 'out' / Path(model).suffix[1:]
        # A checkpoint's predictions change where images of several sizes share a batch.
        options = ['--score-thr', '0', '--device', 'cpu', '--batch-size', '1']
        arguments = ['mmfish', 'predict', model, *inputs, '--out', str(out), *options]
        monkeypatch.setattr(sys, 'argv', arguments)
        main()
        results[model] = json.loads((out / 'predictions.json').read_text())
        names = sorted(file.name for file in out.iterdir())
        assert names == ['0.png', '1.png', '2.png', 'predictions.json']
    expected, found = results.values()
    assert len(expected) == len(found) == 10 * len(SIZES)
    assert expected[0].keys() == found[0].keys()
    same = 0
    for one in expected:
        others = [
            other
            for other in found
            if all(one[k] == other[k] for k in ('image_id', 'file_name', 'category_name'))
            and np.abs(np.subtract(one['bbox'], other['bbox'])).max() <= 0.01
            and abs(one['score'] - other['score']) < 1e-4
            and (mask_of(one) != mask_of(other)).sum() <= 1
        ]
        same += len(others) == 1
    # With random weights one of many boxes with almost the same score may take another's place.
    assert same >= 9 * len(SIZES)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(device='cuda'), r'--device cuda cannot be used with .*\.onnx: give cpu'),
        (dict(config='a.py'), r'leave out --config a\.py'),
        (dict(score_thr=2), '--score-thr'),
    ],
)
def test_what_a_file_cannot_be_told_is_one_sentence(options, message, exported, tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match=message):
        predict_exported(exported, [tmp_path / 'x.png'], tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_colours_of_the_classes_are_kept(checkpoint, tmp_path):
    model = build(checkpoint)
    model.dataset_meta['palette'] = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    graph = graph_of(model)
    assert exporter._description(model, graph)['palette'] == model.dataset_meta['palette']


@pytest.mark.slow
@pytest.mark.parametrize(('config', 'backbone'), DETECTORS, ids=lambda name: name.split('/')[0])
def test_other_detectors_are_exported_too(config, backbone, picture, tmp_path):
    checkpoint = save_model(tiny_config(config, backbone), tmp_path / 'model.pth')
    file = mmfish.export(checkpoint, tmp_path / 'model.onnx')
    check_agreement(file, checkpoint, picture)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_where_nothing_is_found_the_outputs_are_empty(exported, picture, tmp_path, runtime):
    pytest.importorskip(runtime)
    proto = onnx.load(exported)
    (threshold,) = (t for t in proto.graph.initializer if t.name == 'score_thr')
    threshold.CopyFrom(onnx.numpy_helper.from_array(np.float32(1), 'score_thr'))
    onnx.save(proto, tmp_path / 'nothing.onnx')
    found = Detector(tmp_path / 'nothing.onnx', runtime)(picture)
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == dict(boxes=(0, 4), scores=(0,), labels=(0,), masks=(0, *picture.shape[:2]))


def test_a_file_describes_itself(exported, checkpoint):
    metadata = Detector(exported).metadata
    with open(checkpoint, 'rb') as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert metadata == dict(
        mmfish_version=mmfish.__version__,
        weights_sha256=digest,
        half=False,
        int8=False,
        outputs=['boxes', 'scores', 'labels', 'masks'],
        classes=list(CLASSES),
        # The config names no colours: MMDetection gives the classes its own for COCO.
        palette=[list(colour) for colour in CocoDataset.METAINFO['palette'][: len(CLASSES)]],
        pipeline=[dict(type='Resize', scale=[160, 128], keep_ratio=True)],
        score_thr=0.0,
        mask_thr=0.5,
    )


def test_a_file_has_no_custom_operators_and_one_image_of_any_size(exported):
    proto = onnx.load(exported)
    assert {node.domain for node in proto.graph.node} == {''}
    (image,) = proto.graph.input
    sides = image.type.tensor_type.shape.dim
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in sides] == [1, 'height', 'width', 3]


@pytest.mark.slow
def test_half_precision_weights_take_half_the_space(checkpoint, exported, picture, tmp_path):
    file = mmfish.export(checkpoint, tmp_path / 'half.onnx', half=True)
    assert file.stat().st_size < 0.6 * exported.stat().st_size
    found, expected = (Detector(name)(picture) for name in (file, exported))
    assert np.abs(found['scores'] - expected['scores']).max() < 0.01


@pytest.mark.slow
def test_in_integers_a_file_is_a_third_as_large_and_finds_about_the_same(
    checkpoint, exported, shapes, picture, tmp_path
):
    pytest.importorskip('nncf')
    file = mmfish.export(checkpoint, tmp_path / 'int8.onnx', int8=shapes / 'val2017')
    assert file.stat().st_size < 0.4 * exported.stat().st_size
    found, expected = (Detector(name)(picture) for name in (file, exported))
    assert Detector(file).metadata['int8'] is True
    assert np.abs(found['scores'] - expected['scores']).max() < 0.05
    assert {node.domain for node in onnx.load(file).graph.node} == {''}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(half=True, int8='images'), 'half or int8, not both'),
        (dict(int8='images'), r'int8 needs the package nncf: `pip install nncf`'),
    ],
)
def test_integers_that_cannot_be_had_are_refused(
    options, message, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporter, 'find_spec', lambda name: None)
    with pytest.raises(UsageError, match=message):
        mmfish.export('checkpoint.pth', tmp_path / 'model.onnx', **options)


@pytest.mark.parametrize(
    ('name', 'message'), [('clip.mp4', 'got videos alone'), ('nowhere', 'there is no .*nowhere')]
)
def test_images_for_integers_are_looked_for_first(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, 'find_spec', lambda name: True)
    (tmp_path / 'clip.mp4').touch()
    with pytest.raises(UsageError, match=message):
        mmfish.export('checkpoint.pth', tmp_path / 'model.onnx', int8=tmp_path / name)


def test_a_backbone_is_exported_alone(tmp_path):
    net = FishNet('fishnet77', out_indices=(1, 3)).eval()
    file = mmfish.export(net, tmp_path / 'backbone.onnx')
    session = onnxruntime.InferenceSession(file)
    image = torch.randn(1, 3, 96, 64)
    levels = session.run(['level1', 'level3'], dict(image=image.numpy()))
    for level, expected in zip(levels, net(image), strict=True):
        np.testing.assert_allclose(level, expected.detach(), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match='has no description of its images'):
        Detector(file)


def test_a_classifier_is_exported(picture, tmp_path):
    cfg = read_config(config_path('small/fishnet55_cifar10.py'))
    torch.manual_seed(0)
    model = get_model(cfg)
    detector = Detector(mmfish.export(model, tmp_path / 'classifier.onnx'))
    assert detector.metadata['outputs'] == ['scores']
    cv2.imwrite(str(tmp_path / 'x.png'), picture)
    with pytest.raises(UsageError, match=r'classifier\.onnx is a classifier'):
        predict_exported(
            tmp_path / 'classifier.onnx', [tmp_path / 'x.png'], tmp_path / 'out', device='cpu'
        )
    scores = detector(picture)['scores']
    with torch.no_grad():
        image = torch.from_numpy(cv2.resize(picture, (56, 56))[..., ::-1].copy()).permute(2, 0, 1)
        data = model.data_preprocessor(dict(inputs=image[None]))
        (expected,) = model(data['inputs'], mode='predict')
    np.testing.assert_allclose(scores, expected.pred_score, atol=1e-5)


@pytest.mark.slow
def test_a_file_that_disagrees_is_not_left_behind(checkpoint, tmp_path):
    model = build(checkpoint)

    def differ(module, args, output):
        return tuple(1.01 * level for level in output) if torch.onnx.is_in_onnx_export() else None

    # It has predicted before, which changes the loading transform in its config.
    with DefaultScope.overwrite_default_scope('mmdet'):
        inference_detector(model, np.zeros((64, 64, 3), np.uint8))
    model.neck.register_forward_hook(differ)
    with pytest.raises(UsageError, match='disagrees with the model on an image of'):
        mmfish.export(model, tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


def test_a_file_that_gives_nan_is_not_left_behind(tmp_path):
    class Net(nn.Module):
        out_indices = (0,)

        def forward(self, image):
            return (image * (torch.nan if torch.onnx.is_in_onnx_export() else 1),)

    with pytest.raises(UsageError, match='a level is off by nan'):
        mmfish.export(Net(), tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


def change_roi_head(model):
    class OwnRoIHead(type(model.roi_head)):
        def predict_bbox(self, *args, **kwargs):
            return super().predict_bbox(*args, **kwargs)

    model.roi_head.__class__ = OwnRoIHead


def change_nms(model):
    model.roi_head.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)


def change_pipeline(model):
    model.cfg.test_dataloader.dataset.pipeline[1].type = 'FixShapeResize'


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        (change_roi_head, 'OwnRoIHead'),
        (change_nms, 'soft_nms'),
        (change_pipeline, 'FixShapeResize'),
    ],
)
def test_what_cannot_be_exported_is_named(checkpoint, change, name, tmp_path):
    model = build(checkpoint)
    change(model)
    with pytest.raises(UsageError, match=f'{name}.* cannot be exported .*onedl-mmdeploy'):
        mmfish.export(model, tmp_path / 'model.onnx')


@pytest.mark.slow
def test_operators_that_are_not_of_onnx_are_refused(checkpoint, tmp_path):
    cfg = tiny_config('vfnet/vfnet_r50_fpn_1x_coco.py', 'resnet18')
    with pytest.raises(UsageError, match=r'the operator .*DeformConv2d cannot be exported'):
        mmfish.export(save_model(cfg, tmp_path / 'model.pth'), tmp_path / 'model.onnx')


@pytest.mark.parametrize(
    ('model', 'file', 'message'),
    [
        (nn.Conv2d(3, 8, 3), 'model.onnx', 'Conv2d cannot be exported .*expected is a detector'),
        (nn.Conv2d(3, 8, 3), 'model.pth', 'a file that ends in .onnx'),
    ],
)
def test_what_is_no_model_or_no_file_name_is_refused(model, file, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        mmfish.export(model, tmp_path / file)


def test_a_model_without_a_config_is_refused(checkpoint, tmp_path):
    model = build(checkpoint)
    del model.cfg
    with pytest.raises(UsageError, match='MaskRCNN was built without a config'):
        mmfish.export(model, tmp_path / 'model.onnx')


@pytest.mark.slow
def test_a_missing_package_is_named(tmp_path):
    program = (
        'import sys; sys.modules["onnx"] = None\n'
        'import mmfish\n'
        'try: mmfish.export("model.pth", "model.onnx")\n'
        'except mmfish.errors.UsageError as error: print(error)\n'
    )
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert 'exporting needs the packages onnx and onnxruntime: `pip install' in run.stdout


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason='torch.export cannot follow batched_nms')
def test_the_exporter_over_torch_export_could_be_used(checkpoint):
    graph = graph_of(build(checkpoint).requires_grad_(False)).eval()
    image = torch.zeros(1, 96, 128, 3, dtype=torch.uint8)
    sizes = {1: torch.export.Dim('height'), 2: torch.export.Dim('width')}
    torch.export.export(graph, (image,), dynamic_shapes=(sizes,), strict=False)

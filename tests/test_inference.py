"""MMDetection's own ways to a trained detector work with our configs."""

import warnings

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image, ImageDraw
from slow_cases import slow_except

from mmfish import config_path
from mmfish.models import FishNet

CONFIG = config_path('mask_rcnn_fishnet150_fpn_coco.py')
CLASSES = ('cat', 'dog')


@pytest.fixture(autouse=True)
def own_scope():
    # Both leave MMDetection's scope behind, which other tests would build their modules in.
    with DefaultScope.overwrite_default_scope('mmdet'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Our config with a small backbone and small images, a checkpoint of it, and a picture."""
    folder = tmp_path_factory.mktemp('inference')
    cfg = Config.fromfile(CONFIG)
    options = {
        'model.backbone.arch': 'fishnet77',
        'model.neck.in_channels': [80, 208, 400, 528],
        'model.roi_head.bbox_head.fc_out_channels': 16,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 3,
        'test_dataloader.dataset.pipeline.1.scale': (64, 64),
    }
    cfg.merge_from_dict(options)
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = init_detector(cfg, device='cpu')
    content = dict(
        state_dict=model.state_dict(),
        meta=dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES, palette=[(0, 0, 255)])),
    )
    torch.save(content, folder / 'weights.pth')
    picture = Image.new('RGB', (64, 48), 'white')
    ImageDraw.Draw(picture).ellipse((10, 10, 40, 40), fill='red')
    picture.save(folder / 'picture.png')
    return folder


def test_a_config_of_table_3_is_built_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    # With options, init_detector leaves the pretrained weights in the config.
    model = init_detector(CONFIG, device='cpu', cfg_options={'model.test_cfg.rcnn.score_thr': 0.1})
    assert isinstance(model.backbone, FishNet)
    assert model.cfg.model.backbone.init_cfg.checkpoint == 'pytorchcv://fishnet150'
    assert len(model.dataset_meta['classes']) == 80
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('config_of', slow_except(['checkpoint'], ['file', 'checkpoint']))
def test_inferencer_and_detector_agree_on_a_picture(tiny, tmp_path, config_of):
    config, weights = str(tiny / 'config.py'), str(tiny / 'weights.pth')
    picture = str(tiny / 'picture.png')
    inferencer = DetInferencer(
        config if config_of == 'file' else None, weights, device='cpu', show_progress=False
    )
    found = inferencer(picture, out_dir=str(tmp_path))['predictions'][0]
    detector = init_detector(config, weights, device='cpu')
    expected = inference_detector(detector, picture).pred_instances
    assert len(found['bboxes']) == 3
    np.testing.assert_allclose(found['bboxes'], expected.bboxes, atol=1e-3)
    assert found['labels'] == expected.labels.tolist()
    assert detector.dataset_meta['classes'] == CLASSES
    with Image.open(tmp_path / 'vis' / 'picture.png') as drawn:
        assert drawn.size == (64, 48)

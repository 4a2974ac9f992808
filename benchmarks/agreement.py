"""How far exported detectors are from MMDetection's own predictions."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from demo.markdown import markdown_table
from mmfish import plug_in
from mmfish.config.paths import read_config
from mmfish.deploy import export
from mmfish.deploy.exporter import SIZES, compare_detections
from mmfish.deploy.graphs import graph_of
from mmfish.errors import UsageError

DETECTORS = {
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
}
BACKBONES = ('fishnet77', 'ResNet-50')
RUNTIMES = ('onnxruntime', 'openvino')
SCALE = (416, 256)  # of the test pipelines, instead of (1333, 800): some minutes, not an hour
HEAD = ['detector', 'backbone', 'runtime', 'both', 'alone', 'boxes', 'scores', 'masks']


def agreement_table(
    detectors: dict[str, str] = DETECTORS, backbones: tuple[str, ...] = BACKBONES
) -> str:
    """Export detectors with random weights, and compare what they find, in Markdown.

    Args:
        detectors: configs of MMDetection's, by name.
        backbones: archs of FishNet, or ResNet-50, which the configs have.
    """
    rows = [
        [name, backbone, *row]
        for name, config in detectors.items()
        for backbone in backbones
        for row in _rows(config, backbone)
    ]
    return markdown_table(HEAD, rows, numbers=5)


def _rows(config: str, backbone: str) -> Iterator[list[str]]:
    model = _build(config, backbone)
    with TemporaryDirectory() as folder:
        file = Path(folder, 'detector.onnx')
        try:
            export(model, file)
        except UsageError as error:
            yield [str(error)]
            return
        graph = graph_of(model.requires_grad_(False))
        for runtime in RUNTIMES:
            found = [
                compare_detections(graph, file, size, empty=number == 0, runtime=runtime)
                for number, size in enumerate(SIZES)
            ]
            yield [
                runtime,
                str(sum(one.both for one in found)),
                str(sum(one.alone for one in found)),
                f'{max(one.boxes for one in found):.0e}',
                f'{max(one.scores for one in found):.0e}',
                str(max(one.masks for one in found)) if 'masks' in graph.outputs else '',
            ]


def _build(config: str, backbone: str) -> nn.Module:
    cfg: Config = read_config(f'mmdet::{config}')
    if backbone.startswith('fishnet'):
        cfg = plug_in(cfg, backbone)
    cfg.test_dataloader.dataset.pipeline[1].scale = SCALE
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return init_detector(cfg, device='cpu').eval()

"""What the trainings cost, estimated: `python -m benchmarks.costs docs/reproduce.md`.

Nothing here was timed by us. Published times of ResNet-50 are scaled by the activation memory of
each backbone, with BatchNorm as PyTorch has it: reading and writing activations is most of a step
on a GPU.
"""

import sys
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from benchmarks.complexity import build_model, complexity, parameter_count
from benchmarks.memory import activation_memory
from demo.markdown import fill_page, markdown_table
from mmfish.config.paths import config_folder

# timm, results/benchmark-train-amp-nchw-pt112-cu113-rtx3090.csv: images per second of resnet50 in
# training, in mixed precision on one RTX 3090.
RESNET50_IMAGES = 826.06
RESNET50 = 'resnet50_8xb32_in1k'
IMAGENET_IMAGES = 1_281_167
# MMDetection, docs/en/model_zoo.md, training speed and inference speed in the comparison with
# Detectron2: with ResNet-50, the seconds of an iteration on 8 V100 with two images each, and the
# images per second of a test on one.
ITERATION = {'FasterRCNN': 0.216, 'MaskRCNN': 0.265}
TESTED_IMAGES = {'FasterRCNN': 22.2, 'MaskRCNN': 19.6}
COCO_IMAGES, COCO_VAL_IMAGES = 117_266, 5_000  # of train2017 those with an object
IMAGE = 800, 1344
# What Mask R-CNN keeps outside its backbone, for one image with 8 objects: the difference of the
# activation memory of both with FishNet-150 in docs/performance.md.
HEADS = (1735 - 1392) * 2**20
STATE = 3 * 4  # bytes for each parameter: the parameter, its gradient and its momentum


def imagenet_table(folder: Path) -> str:
    """Hours and memory of the classifiers, in Markdown; two of them are timm's.

    Args:
        folder: with their configs.
    """
    rows = []
    reference = _held(_classifier(RESNET50), 32, 224, 224)
    for path in sorted(folder.glob('*.py')):
        epochs = Config.fromfile(path).train_cfg.max_epochs
        model = _classifier(str(path))
        held = _held(model, 32, 224, 224)
        hours = epochs * IMAGENET_IMAGES / RESNET50_IMAGES / 3600 * held / reference
        memory = held + STATE * parameter_count(model)
        rows.append([f'`{path.name}`', *_cells(held / reference, hours, memory)])
    return _table(rows)


def coco_table(folder: Path) -> str:
    """Hours and memory of Faster and Mask R-CNN, in Markdown.

    Args:
        folder: with their configs.
    """
    rows = []
    resnet = Config.fromfile(folder / 'faster_rcnn_r50_fpn_coco.py')
    reference = _held(_plain_backbone(resnet), 1, *IMAGE)
    share = backbone_share(folder)
    for path in sorted(folder.glob('*_rcnn_*_coco.py')):
        cfg = Config.fromfile(path)
        kind, epochs = cfg.model.type, cfg.train_cfg.max_epochs
        ratio = _held(_plain_backbone(cfg), 1, *IMAGE) / reference
        # The backbone takes the same time in both detectors.
        slower = 1 + share * (ratio - 1) * ITERATION['FasterRCNN'] / ITERATION[kind]
        training = 8 * ITERATION[kind] / 16 * COCO_IMAGES
        testing = COCO_VAL_IMAGES / TESTED_IMAGES[kind]
        hours = epochs * (training + testing) / 3600 * slower
        state = STATE * parameter_count(build_model(str(path)))
        memory = _held(_backbone(cfg), 1, *IMAGE) + HEADS + state
        rows.append([f'`{path.name}`', *_cells(ratio, hours, memory)])
    return _table(rows)


def backbone_share(folder: Path) -> float:
    """The share of ResNet-50 in the multiply-adds of Faster R-CNN, for one image.

    Args:
        folder: with the config.
    """
    detector = build_model(str(folder / 'faster_rcnn_r50_fpn_coco.py'))
    resnet = build_model(RESNET50)
    return complexity(resnet, IMAGE).macs / complexity(detector, IMAGE).macs


def _cells(ratio: float, hours: float, memory: float) -> list[str]:
    times = [hours / 16, hours / 8, hours]
    return [f'{ratio:.2f}', *(f'{time:.0f}' for time in times), f'{memory / 1e9:.1f}']


def _table(rows: list[list[str]]) -> str:
    head = ['config', 'activations', 'hours on 16', 'on 8', 'on one GPU', 'memory, GB']
    return markdown_table(head, rows, numbers=5)


def _classifier(name: str) -> nn.Module:
    return build_model(name).to('meta').train()


def _plain_backbone(cfg: Config) -> nn.Module:
    return _backbone(cfg, norm_cfg=dict(type='BN'))


def _backbone(cfg: Config, **options: object) -> nn.Module:
    backbone = ConfigDict(cfg.model.backbone, init_cfg=None, **options)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(backbone).to('meta')
    model.train()  # MMDetection's return nothing here
    return model


def _held(model: nn.Module, images: int, height: int, width: int) -> int:
    return activation_memory(model, torch.empty(images, 3, height, width, device='meta'))


def main() -> None:
    """Put the tables into a page, or print them if none is given."""
    folder = config_folder()
    tables = {
        'costs, COCO': coco_table(folder),
        'costs, ImageNet': imagenet_table(folder / 'imagenet'),
    }
    if sys.argv[1:]:
        fill_page(Path(sys.argv[1]), tables)
    else:
        print('\n\n'.join(tables.values()))


if __name__ == '__main__':
    main()

"""A small data set of three classes, and what the pipelines of a config make of it."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.image import imwrite
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate

from mmfish.config.paths import dicts
from mmfish.engine.inputs import TEXT

# The settings of transforms that are sizes in pixels, where they are not shares of an image.
SIZES = ('scale', 'scales', 'img_scale', 'crop_size', 'size', 'max_size')
USUAL_SIZE = 1024  # pixels, about, that configs resize images to


def write_data(root: Path, size: int = 128) -> None:
    """Write a data set in the layout of COCO 2017: boxes and masks of the three classes of `TEXT`.

    Args:
        root: its folder.
        size: height and width of its images in pixels: two to train on and one to validate.
    """
    noise = np.random.default_rng(0)
    side = size // 2
    categories = [dict(id=i, name=name) for i, name in enumerate(TEXT, 1)]
    for split, count in (('train2017', 2), ('val2017', 1)):
        images = [dict(id=i, file_name=f'{i}.png', height=size, width=size) for i in range(count)]
        for image in images:
            pixels = noise.integers(256, size=(size, size, 3), dtype=np.uint8)
            imwrite(pixels, f'{root}/{split}/{image["file_name"]}')
        annotations = []
        for image, category in itertools.product(images, categories):
            x, y = 8 * category['id'], 16 * category['id']
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=category['id'],
                    bbox=[x, y, side, side],
                    area=side * side,
                    iscrowd=0,
                    segmentation=[[x, y, x + side, y, x + side, y + side, x, y + side]],
                )
            )
        file = root / 'annotations' / f'instances_{split}.json'
        file.parent.mkdir(exist_ok=True)
        content = dict(images=images, categories=categories, annotations=annotations)
        file.write_text(json.dumps(content))


def data_set(cfg: Config, split: str) -> BaseDataset:
    """A data set of a config: ``split`` is 'train' or 'val'."""
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def loaded_inputs(cfg: Config, split: str, size: int) -> dict[str, Any]:
    """The first and the last image of a config's training data, or the first of its others.

    Args:
        cfg: a config of MMDetection; not changed.
        split: 'train' or 'val'.
        size: about height and width of the images in pixels: what its pipeline resizes them to,
            made so much smaller that `USUAL_SIZE` becomes this.

    Returns:
        ``inputs`` and ``data_samples``.
    """

    def smaller(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(smaller, value))
        is_size = isinstance(value, int) and value > 32
        return max(32, value * size // USUAL_SIZE) if is_size else value

    cfg = Config(cfg.to_dict())
    for step in dicts(cfg[f'{split}_dataloader'].dataset):
        for key in step.keys() & set(SIZES):
            step[key] = smaller(step[key])
    data = data_set(cfg, split)
    return pseudo_collate([data[i] for i in ((0, len(data) - 1) if split == 'train' else (0,))])

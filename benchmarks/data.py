"""A small data set of three classes, and what the pipelines of a config make of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.image import imwrite
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate

from mmfish.config.paths import dicts

CLASSES = ('cat', 'dog', 'fish')
# The settings of transforms that are sizes in pixels, where they are not shares of an image.
SIZES = ('scale', 'scales', 'img_scale', 'crop_size', 'size', 'max_size')
USUAL_SIZE = 1024  # pixels, about, that configs resize images to


def content(
    names: Sequence[str],
    classes: Sequence[str] = CLASSES,
    *,
    masks: bool = True,
    size: int = 64,
    first_id: int = 1,
) -> dict[str, Any]:
    """Annotations in COCO's format: in each image one object of every class.

    Args:
        names: of the images' files.
        classes: their names.
        masks: with a polygon for each object, beside its box.
        size: height and width of the images in pixels.
        first_id: of the categories.
    """
    images = [dict(id=i, file_name=n, width=size, height=size) for i, n in enumerate(names)]
    categories = [dict(id=i, name=n) for i, n in enumerate(classes, first_id)]
    side = size // 2
    annotations = []
    for image in images:
        for number, category in enumerate(categories):
            place = number % 3 + 1  # a fourth would leave the image
            x, y = place * size // 16, place * size // 8
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image['id'],
                category_id=category['id'],
                bbox=[x, y, side, side],
                area=side * side,
                iscrowd=0,
            )
            if masks:
                corners = [x, y, x + side, y, x + side, y + side, x, y + side]
                annotation['segmentation'] = [corners]
            annotations.append(annotation)
    return dict(images=images, categories=categories, annotations=annotations)


def write(file: Path, content: Any, images: Path | None = None) -> Path:
    """Write an annotation file, and into a folder the images that it lists, full of noise."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    if images is not None:
        noise = np.random.default_rng(0)
        for image in content['images']:
            pixels = noise.integers(256, size=(image['height'], image['width'], 3), dtype=np.uint8)
            imwrite(pixels, str(images / image['file_name']))
    return file


def write_data(
    root: Path,
    classes: Sequence[str] = CLASSES,
    *,
    images: tuple[int, int] = (4, 2),
    masks: bool = True,
    size: int = 64,
) -> Path:
    """Write a data set in the layout of COCO 2017.

    Args:
        root: its folder.
        classes: as for `content`.
        images: how many to train on, and how many to validate.
        masks: as for `content`.
        size: likewise.

    Returns:
        The folder.
    """
    for split, count in zip(('train', 'val'), images, strict=True):
        names = [f'{split}{i}.png' for i in range(count)]
        write(
            root / f'annotations/instances_{split}2017.json',
            content(names, classes, masks=masks, size=size),
            root / f'{split}2017',
        )
    return root


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

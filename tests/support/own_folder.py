"""Data sets of a user's own, so small that they are written for each test."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.image import imwrite

CLASSES = ('cat', 'dog', 'fish')


def content(
    names: Sequence[str],
    classes: Sequence[str] = CLASSES,
    *,
    masks: bool = True,
    size: int = 64,
    first_id: int = 1,
) -> dict[str, Any]:
    """Annotations in COCO's format: in each image one object of every class."""
    images = [dict(id=i, file_name=n, width=size, height=size) for i, n in enumerate(names)]
    categories = [dict(id=i, name=n) for i, n in enumerate(classes, first_id)]
    annotations = []
    for image in images:
        for place, category in enumerate(categories):
            x, y, side = 4 + 4 * place, 8, size // 2
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
    """Write an annotation file, and into a folder the images that it lists."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    if images is not None:
        noise = np.random.default_rng(0)
        for image in content['images']:
            pixels = noise.integers(0, 255, (image['height'], image['width'], 3), dtype=np.uint8)
            imwrite(pixels, str(images / image['file_name']))
    return file


def own_folder(root: Path, *, masks: bool = True, classes: Sequence[str] = CLASSES) -> Path:
    """A data set of three classes in COCO's layout: 4 images to train on, 2 to validate."""
    for split, count in (('train', 4), ('val', 2)):
        names = [f'{split}{i}.png' for i in range(count)]
        write(
            root / f'annotations/instances_{split}2017.json',
            content(names, classes, masks=masks),
            root / f'{split}2017',
        )
    return root

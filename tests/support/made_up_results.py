"""Diamonds, and predictions of them: the mask of each covers half of its box."""

import json
from pathlib import Path

import numpy as np
import torch
from mmengine.model import BaseModel
from pycocotools import mask as rle
from torch import Tensor

CLASSES = ('small', 'large')
IMAGES, SIDE = 6, 200


def diamond(x: float, y: float, size: int) -> np.ndarray:
    """A mask of the whole image, with the centre and the diagonal of the diamond."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return abs(columns - x) + abs(rows - y) <= size / 2


def write_annotations(file: Path) -> Path:
    """Six images of two classes, each with an object of every size that COCO tells apart."""
    annotations = []
    for image in range(IMAGES):
        for i, (x, y, size) in enumerate([(30, 30, 24), (150, 40, 60), (100, 130, 140)]):
            code = rle.encode(np.asfortranarray(diamond(x + image, y, size)))
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image,
                category_id=10 * (1 + (i > 0)),
                bbox=rle.toBbox(code).tolist(),
                area=int(rle.area(code)),
                iscrowd=0,
                segmentation=dict(size=code['size'], counts=code['counts'].decode()),
            )
            annotations.append(annotation)
    images = [dict(id=i, file_name=f'{i}.png', width=SIDE, height=SIDE) for i in range(IMAGES)]
    categories = [dict(id=10 * (i + 1), name=name) for i, name in enumerate(CLASSES)]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file


def predict(image: int) -> dict:
    """What a detector might return: each object, shifted, and one that is not there.

    The box of that one is of medium size, and its mask is small.
    """
    noise = np.random.default_rng(image)
    objects = [(30, 30, 24, 0), (150, 40, 60, 1), (100, 130, 140, 1), (60, 90, 42, image % 2)]
    shifts = noise.integers(-2, 3, (len(objects), 2))
    masks = np.stack(
        [
            diamond(x + image + dx, y + dy, size)
            for (x, y, size, _), (dx, dy) in zip(objects, shifts, strict=True)
        ]
    )
    boxes = [rle.toBbox(rle.encode(np.asfortranarray(mask))) for mask in masks]
    return dict(
        img_id=image,
        ori_shape=(SIDE, SIDE),
        pred_instances=dict(
            bboxes=torch.tensor(np.stack([[x, y, x + w, y + h] for x, y, w, h in boxes])).float(),
            scores=torch.tensor(noise.uniform(0.3, 1, len(objects))),
            labels=torch.tensor([label for *_, label in objects]),
            masks=torch.tensor(masks),
        ),
    )


class Clairvoyant(BaseModel):
    """A detector that needs only the numbers of the images."""

    def forward(self, numbers: Tensor, mode: str = 'predict') -> list[dict]:
        return [predict(int(number)) for number in numbers]

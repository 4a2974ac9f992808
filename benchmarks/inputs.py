"""What a config can be tried with where there is no data set and no network: made-up images.

Most of them are `mmdet.testing`'s. Here is what it does not make: targets of the classes that a
model has, labels for ReID, lanes, and the branches of semi-supervised training; and a small data
set for pipelines to load.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.image import imwrite
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures import DetDataSample, ReIDDataSample
from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.structures import PixelData

from mmfish.config.paths import dicts

PERSON = (3, 256, 128)  # an image for ReID
ROAD = (3, 320, 800)  # an image for detectors of lanes, whose heads have its size built in
TEXT = ('first thing', 'second thing', 'third thing')  # classes for models that read
# The settings of transforms that are sizes in pixels, where they are not shares of an image.
SIZES = ('scale', 'scales', 'img_scale', 'crop_size', 'size', 'max_size')
USUAL_SIZE = 1024  # pixels, about, that configs resize images to


def model_inputs(model: dict, size: int, images: int = 2, training: bool = True) -> dict[str, Any]:
    """Images with targets, in the form that a model's data preprocessor takes.

    Args:
        model: the config of a model of MMDetection.
        size: height and width of the images in pixels, where the model leaves a choice.
        images: how many; trackers take them as the frames of one video.
        training: in the form for a training step, or for a prediction.

    Returns:
        ``inputs`` and ``data_samples``: boxes, masks and semantic maps for detectors.
    """
    kind = (model.get('data_preprocessor') or {}).get('type', '').rpartition('.')[2]
    if kind == 'ReIDDataPreprocessor':
        # The triplet loss needs two identities, and two images of each.
        data = demo_mm_inputs(4, PERSON)
        return data | dict(data_samples=[ReIDDataSample().set_gt_label(i // 2) for i in range(4)])
    if kind == 'LineDetDataProcessor':
        return demo_mm_inputs(images, ROAD) | dict(data_samples=[_lanes() for _ in range(images)])
    if kind == 'TrackDataPreprocessor':
        data = demo_track_inputs(
            1, images, [0] if training else None, (3, size, size), [3], with_mask=True
        )
        data['data_samples'][0].set_metainfo(dict(ori_video_length=images))
        return data
    data = _detection_inputs(model, size, images)
    if kind == 'MultiBranchDataPreprocessor' and training:
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        of_branches = {branch: _detection_inputs(model, size, images) for branch in branches}
        return {key: {branch: of_branches[branch][key] for branch in branches} for key in data}
    return data


def write_data(root: Path, size: int = 128) -> None:
    """Write a data set in the layout of COCO 2017: boxes and masks of the three classes of `TEXT`.

    Args:
        root: its folder.
        size: height and width of its images in pixels: two to train on and one to validate.
    """
    noise = np.random.default_rng(0)
    side = size // 2
    for split, images in (('train2017', 2), ('val2017', 1)):
        content: dict[str, list] = dict(images=[], annotations=[])
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(TEXT, 1)]
        for image in range(images):
            name = f'{image}.png'
            imwrite(
                noise.integers(256, size=(size, size, 3), dtype=np.uint8), f'{root}/{split}/{name}'
            )
            content['images'].append(dict(id=image, file_name=name, height=size, width=size))
            for category in content['categories']:
                x, y = 8 * category['id'], 16 * category['id']
                corners = [x, y, x + side, y, x + side, y + side, x, y + side]
                content['annotations'].append(
                    dict(
                        id=len(content['annotations']) + 1,
                        image_id=image,
                        category_id=category['id'],
                        bbox=[x, y, side, side],
                        area=side * side,
                        iscrowd=0,
                        segmentation=[corners],
                    )
                )
        file = root / 'annotations' / f'instances_{split}.json'
        file.parent.mkdir(exist_ok=True)
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


def remove_checkpoints(model: dict) -> None:
    """Take out of the config of a model all weights that it would load, which may be downloads."""
    for part in dicts(model):
        init_cfg = part.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            del part['init_cfg']
        part.pop('pretrained', None)
        if 'teacher_ckpt' in part:
            part['teacher_ckpt'] = None


def _detection_inputs(model: dict, size: int, images: int) -> dict[str, Any]:
    things, classes = _classes(model)
    data = demo_mm_inputs(
        images,
        (3, size, size),
        [3] * images,
        num_classes=min(max(classes, 2), 256),  # what it can draw in a map of bytes
        with_mask=True,
        with_semantic=True,
        texts=[TEXT] * images,
    )
    for sample in data['data_samples']:
        sample.gt_instances.labels %= min(things, len(TEXT))
        sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
        if not any('rpn_head' in part for part in dicts(model)):
            # Fast R-CNN takes them from a file.
            sample.proposals = demo_mm_proposals([(3, size, size)], 6)[0]
    return data


def _classes(model: dict) -> tuple[int, int]:
    """How many classes of things a model has at least, and of things and stuff at most."""
    fields: dict[str, list[int]] = {}
    for part in dicts({key: part for key, part in model.items() if key != 'backbone'}):
        for key, value in part.items():
            if isinstance(value, int):
                fields.setdefault(key, []).append(value)
    things = min(fields.get('num_things_classes', []) + fields.get('num_classes', []) or [1])
    return things, things + max(fields.get('num_stuff_classes', [0]))


def _lanes() -> DetDataSample:
    """The targets of an image of a road: two lanes as lines and in the semantic map."""
    _, height, width = ROAD
    lines = [[(200, height - 1), (300, 10)], [(600, height - 1), (500, 10)]]
    arrays = TRANSFORMS.build(dict(type='LinesToArray')).transform(dict(lines=lines))
    classes = torch.zeros(1, height, width, dtype=torch.long)
    classes[..., 240:260], classes[..., 540:560] = 1, 2
    return DetDataSample(
        lines_array=arrays['lines_array'],
        org_height=height,
        org_width=width,
        gt_sem_seg=PixelData(sem_seg=classes),
    )

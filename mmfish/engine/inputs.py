"""What a config can be tried with where there is no data set and no network: made-up images.

Most of them are `mmdet.testing`'s. Here is what it does not make: targets of the classes that a
model has, labels for ReID, lanes, and the branches of semi-supervised training; and a small data
set for pipelines to load.
"""

from typing import Any

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample, ReIDDataSample
from mmdet.testing import demo_mm_inputs, demo_mm_proposals, demo_track_inputs
from mmengine.structures import PixelData

from mmfish.config.paths import dicts
from mmfish.registry import pretrained_cfg, type_name

PERSON = (3, 256, 128)  # an image for ReID
ROAD = (3, 320, 800)  # an image for detectors of lanes, whose heads have its size built in
TEXT = ('first thing', 'second thing', 'third thing')  # classes for models that read


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
    kind = type_name(model.get('data_preprocessor') or {})
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


def remove_checkpoints(model: dict) -> None:
    """Take out of the config of a model all weights that it would load, which may be downloads."""
    for part in dicts(model):
        if pretrained_cfg(part.get('init_cfg')):
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

"""Mask AP by size in both measures, against pycocotools itself."""

import copy

import pytest
from made_up_results import CLASSES, IMAGES, predict, write_annotations
from mmdet.evaluation import CocoMetric
from mmengine.registry import METRICS
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmfish.engine.metrics import BoxAreaCocoMetric


@pytest.fixture(scope='module')
def ann_file(tmp_path_factory):
    return write_annotations(tmp_path_factory.mktemp('made_up') / 'annotations.json')


def evaluate(kind, ann_file, **options):
    metric = kind(ann_file=str(ann_file), metric=['bbox', 'segm'], **options)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [predict(image) for image in range(IMAGES)])
    return metric.evaluate(IMAGES)


def ap_of_masks(ann_file, with_boxes):
    """What pycocotools makes of the same predictions: all, small, medium, large."""
    results = []
    for image in range(IMAGES):
        found = predict(image)['pred_instances']
        for box, score, label, mask in zip(*(found[key] for key in found), strict=True):
            code = rle.encode(mask.numpy().astype('uint8', order='F'))
            result = dict(image_id=image, category_id=10 * (int(label) + 1), score=float(score))
            result['segmentation'] = code
            if with_boxes:
                x, y, x2, y2 = box.tolist()
                result['bbox'] = [x, y, x2 - x, y2 - y]
            results.append(result)
    coco = COCO(str(ann_file))
    evaluation = COCOeval(coco, coco.loadRes(results), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [round(value, 3) for value in evaluation.stats[[0, 3, 4, 5]]]


def test_both_measures_are_those_of_pycocotools(ann_file):
    metrics = evaluate(BoxAreaCocoMetric, ann_file)
    today, older = (ap_of_masks(ann_file, with_boxes) for with_boxes in (False, True))
    names = ('segm_mAP', 'segm_mAP_s', 'segm_mAP_m', 'segm_mAP_l')
    assert [metrics[f'coco/{name}'] for name in names] == today
    assert [metrics[f'coco/{name}_box_area'] for name in names[1:]] == older[1:]
    assert today[0] == older[0]
    # The made-up objects that are not there count among the small ones, or the medium ones.
    assert today[1] < older[1]
    assert today[2] > older[2]


def test_the_other_metrics_are_those_of_mmdetection(ann_file):
    ours, theirs = (evaluate(kind, ann_file) for kind in (BoxAreaCocoMetric, CocoMetric))
    added = {f'coco/segm_mAP_{size}_box_area' for size in 'sml'}
    assert ours.keys() - theirs.keys() == added
    assert {key: ours[key] for key in theirs} == theirs


def test_there_is_nothing_to_add_without_masks_or_without_an_evaluation(ann_file, tmp_path):
    metric = BoxAreaCocoMetric(ann_file=str(ann_file), metric='bbox')
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [predict(image) for image in range(IMAGES)])
    assert not any('segm' in name for name in metric.evaluate(IMAGES))
    options = dict(format_only=True, outfile_prefix=str(tmp_path / 'results'))
    assert evaluate(BoxAreaCocoMetric, ann_file, **options) == {}


def test_nothing_detected_is_no_error(ann_file):
    metric = METRICS.build(
        dict(type='mmfish.BoxAreaCocoMetric', ann_file=str(ann_file), metric=['bbox', 'segm'])
    )
    metric.dataset_meta = dict(classes=CLASSES)
    for image in range(IMAGES):
        sample = copy.copy(predict(image))
        sample['pred_instances'] = {k: v[:0] for k, v in sample['pred_instances'].items()}
        metric.process({}, [sample])
    assert metric.evaluate(IMAGES) == {}

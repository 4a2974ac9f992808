"""Predictions in COCO's results format, as pycocotools reads them."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmfish.inference.coco import Predictions, coco_results, encode_mask


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 1])
@pytest.mark.parametrize('shape', [(1, 1), (3, 5), (64, 64), (480, 640)])
def test_masks_are_encoded_as_pycocotools_does(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    expected = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    expected['counts'] = expected['counts'].decode()
    assert encode_mask(mask) == expected


def test_results_name_image_and_class():
    found = Predictions(
        np.array([[1, 2, 4, 8], [0, 0, 1, 1.00049]], np.float32),
        np.array([0.9, 0.5]),
        np.array([1, 5]),
    )
    first, second = coco_results(found, 7, 'a/x.png', ('cat', 'dog'))
    assert first == dict(
        image_id=7,
        file_name='a/x.png',
        category_id=2,
        category_name='dog',
        bbox=[1, 2, 3, 6],
        score=0.9,
    )
    assert (second['category_id'], second['category_name']) == (6, 'class 6')


def test_predictions_above_a_score_come_best_first():
    found = Predictions(
        np.eye(4), np.array([0.1, 0.5, 0.9, 0.3]), np.arange(4), np.zeros((4, 2, 2))
    )
    best = found.above(0.3)
    assert best.labels.tolist() == [2, 1, 3]
    assert best.masks.shape == (3, 2, 2)

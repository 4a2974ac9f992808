"""Where the transforms differ from MMCV's and MMDetection's, and that they do not elsewhere."""

import copy

import mmdet.datasets.transforms
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import TRANSFORMS

from mmfish.datasets import LoadAnnotations, Resize
from mmfish.errors import DataError


def loaded(height, width, masks=BitmapMasks):
    """A loaded image with one object that fills it."""
    outline = np.array([0, 0, width, 0, width, height, 0, height], np.float64)
    mask = np.ones((height, width), np.uint8)
    return dict(
        img=np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8),
        gt_bboxes=HorizontalBoxes(torch.tensor([[0, 0, width, height]], dtype=torch.float32)),
        gt_masks=masks([mask] if masks is BitmapMasks else [[outline]], height, width),
        gt_seg_map=mask,
    )


@pytest.mark.parametrize('masks', [BitmapMasks, PolygonMasks])
@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('size', [(1, 1), (2, 3000), (3000, 2), (480, 640), (37, 53)])
def test_resize_computes_the_same_as_mmdetections(size, keep_ratio, masks):
    options = dict(scale=(1333, 800), keep_ratio=keep_ratio)
    results = loaded(*size, masks)
    expected = mmdet.datasets.transforms.Resize(**options)(copy.deepcopy(results))
    results = Resize(**options)(results)
    assert results.keys() == expected.keys()
    for key in ('img', 'gt_seg_map', 'homography_matrix', 'scale', 'scale_factor', 'img_shape'):
        np.testing.assert_array_equal(results[key], expected[key])
    assert torch.equal(results['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)
    np.testing.assert_array_equal(
        results['gt_masks'].to_ndarray(), expected['gt_masks'].to_ndarray()
    )


@pytest.mark.parametrize('masks', [BitmapMasks, PolygonMasks])
@pytest.mark.parametrize(('size', 'resized'), [((1, 3000), (1, 1333)), ((9000, 3), (1333, 1))])
def test_resize_keeps_one_pixel_of_the_shorter_side(size, resized, masks):
    results = Resize(scale=(1333, 800), keep_ratio=True)(loaded(*size, masks))
    assert results['img'].shape == (*resized, 3)
    assert results['gt_seg_map'].shape == results['img_shape'] == resized
    assert results['gt_masks'].to_ndarray().shape == (1, *resized)
    assert results['gt_bboxes'].tensor.tolist() == [[0, 0, resized[1], resized[0]]]


@pytest.mark.parametrize(
    'options',
    [
        dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)], keep_ratio=True),
        dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True),
        dict(type='mmdet.ResizeShortestEdge', scale=800, max_size=1333),
    ],
)
def test_random_resizing_keeps_one_pixel_of_the_shorter_side(options):
    transform = TRANSFORMS.build(dict(options, resize_type='mmfish.Resize'))
    assert transform(loaded(1, 3000))['img'].shape == (1, 1333, 3)


def annotations(mask):
    instance = dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0, mask=mask)
    return dict(img_path='a.jpg', img_id=7, ori_shape=(64, 64), instances=[instance])


@pytest.mark.parametrize(
    'mask',
    [
        [[1, 1, 1e9, 1]],  # two points
        [[1, 1, 1e9, 1, 6e8, 9e8, 1]],  # an odd number
        dict(size=[20, 20]),
        dict(size=[20, 20], counts=7),
    ],
)
def test_masks_that_mmdetection_ignores_are_ignored(mask):
    results = LoadAnnotations(with_mask=True)(annotations(mask))
    assert results['gt_ignore_flags'].tolist() == [True]


def test_a_polygon_far_outside_is_named_at_any_position():
    good = [1, 1, 9, 1, 9, 9]
    for far in (1e9, float('nan')):
        with pytest.raises(DataError, match=r'a\.jpg \(image 7\).*coordinate'):
            LoadAnnotations(with_mask=True)(annotations([good, [*good[:-1], far], good]))


def test_masks_that_are_not_loaded_are_not_checked():
    results = LoadAnnotations(with_mask=False)(annotations([[1, 1, 1e9, 1, 6e8, 9e8]]))
    assert len(results['gt_bboxes']) == 1

"""The shapes data set is valid for COCO's tools, reproducible, and written whole or not at all."""

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from demo import shapes
from demo.shapes import CLASSES, PALETTE, ShapesError, make_shapes
from mmfish.registry import DATASETS

# With this seed the few training images have objects of all of COCO's sizes.
TRAIN, VAL, SEED = 60, 4, 5


def files(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by its relative path."""
    paths = (path for path in root.rglob('*') if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', TRAIN, VAL, seed=SEED)


@pytest.fixture(scope='module')
def coco(root: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(root / 'annotations' / 'instances_train2017.json'))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data set of one image in each split, for tests that change it."""
    return make_shapes(tmp_path / 'small', train=1, val=1, seed=SEED)


def test_layout_is_that_of_coco(root: Path) -> None:
    assert sorted(path.name for path in root.iterdir()) == [
        'annotations',
        'shapes.json',
        'train2017',
        'val2017',
    ]
    for split, count in (('train', TRAIN), ('val', VAL)):
        document = json.loads((root / f'annotations/instances_{split}2017.json').read_text())
        assert {'info', 'licenses', 'images', 'annotations', 'categories'} == document.keys()
        assert [category['name'] for category in document['categories']] == list(CLASSES)
        assert len(document['images']) == count
        for image in document['images']:
            pixels = cv2.imread(str(root / f'{split}2017' / image['file_name']))
            assert pixels.shape == (image['height'], image['width'], 3) == (128, 128, 3)


def test_same_seed_same_bytes_and_another_seed_other_images(tmp_path: Path) -> None:
    first = files(make_shapes(tmp_path / 'a', train=3, val=2, seed=5))
    assert files(make_shapes(tmp_path / 'b', train=3, val=2, seed=5)) == first
    other = files(make_shapes(tmp_path / 'c', train=3, val=2, seed=6))
    assert other.keys() == first.keys()
    assert not [name for name in first if first[name] == other[name]]


def test_an_image_depends_on_its_number_not_on_how_many_there_are(root: Path, small: Path) -> None:
    name = 'train2017/000000000001.png'
    assert (small / name).read_bytes() == (root / name).read_bytes()
    assert (small / name).read_bytes() != (small / name.replace('train', 'val')).read_bytes()


def test_boxes_and_areas_are_exactly_those_of_the_masks(coco: COCO) -> None:
    assert min(coco.anns) == 1  # pycocotools takes 0 for "no match"
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())
        assert annotation['area'] == mask.sum() >= 40
        assert annotation['iscrowd'] == 0


def test_visible_masks_never_overlap(coco: COCO) -> None:
    for annotations in coco.imgToAnns.values():
        assert sum(coco.annToMask(annotation) for annotation in annotations).max() == 1


def test_objects_hide_parts_of_others_but_never_almost_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wholes: list[np.ndarray] = []
    place = shapes._coverage

    def place_and_remember(*args: Any, **kwargs: Any) -> np.ndarray:
        coverage = place(*args, **kwargs)
        wholes.append(coverage >= 0.5)
        return coverage

    monkeypatch.setattr(shapes, '_coverage', place_and_remember)
    fractions = []
    for seed in range(20):
        wholes.clear()
        _, objects = shapes.draw_scene(np.random.default_rng(seed), 128)
        assert 1 <= len(objects) <= shapes.MAX_OBJECTS
        for _, mask in objects:
            # The shape as it was placed is the one, of those tried, that the mask fills best.
            around = [whole for whole in wholes if not (mask & ~whole).any()]
            fractions.append(max(mask.sum() / whole.sum() for whole in around))
    assert min(fractions) >= shapes.MIN_VISIBLE_FRACTION
    assert 0.2 < np.mean(np.array(fractions) < 0.95) < 0.6


def test_every_class_and_every_size_of_coco_is_there(coco: COCO) -> None:
    areas = np.array([annotation['area'] for annotation in coco.anns.values()])
    assert {annotation['category_id'] for annotation in coco.anns.values()} == {1, 2, 3}
    assert (areas < 32**2).sum() > 20
    assert ((areas > 32**2) & (areas < 96**2)).sum() > 50
    assert (areas > 96**2).sum() > 0


def test_ground_truth_as_prediction_has_an_ap_of_one(coco: COCO) -> None:
    keys = ('image_id', 'category_id', 'bbox', 'segmentation')
    results = [{key: a[key] for key in keys} | {'score': 1.0} for a in coco.anns.values()]
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ('bbox', 'segm'):
            evaluation = COCOeval(coco, coco.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.parametrize('size', [64, 200])
def test_other_sizes_hold_the_same_kind_of_image(size: int) -> None:
    rng = np.random.default_rng(0)
    image, objects = shapes.draw_scene(rng, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert all(mask.sum() >= shapes.MIN_VISIBLE_AREA * size**2 for _, mask in objects)


@pytest.mark.parametrize('name', CLASSES)
def test_a_mask_covers_the_visible_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object of a plain colour on a plain ground: the mask is where its colour is."""
    monkeypatch.setattr(shapes, 'CLASSES', (name,))
    monkeypatch.setattr(shapes, 'MAX_OBJECTS', 1)
    monkeypatch.setattr(shapes, '_texture', lambda rng, size: np.zeros((size, size)))
    image, [(_, mask)] = shapes.draw_scene(np.random.default_rng(3), 128)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0
    outer = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) == 0
    inside, outside = (np.median(image[part], axis=0) for part in (inner, outer))
    nearer = np.linalg.norm(image - inside, axis=2) < np.linalg.norm(image - outside, axis=2)
    assert nearer[inner].mean() > 0.99
    assert nearer[outer].mean() < 0.01
    assert (nearer != mask).sum() < 0.02 * mask.sum()


def test_complete_data_set_is_reused(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob('*')}
    assert make_shapes(small, train=1, val=1, seed=SEED) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob('*')} == before


def test_other_parameters_are_refused_and_nothing_is_touched(small: Path) -> None:
    before = files(small)
    with pytest.raises(ShapesError, match=r'seed=5.* but .*seed=6.* was asked for'):
        make_shapes(small, train=1, val=1, seed=SEED + 1)
    assert files(small) == before


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'photo.jpg').write_bytes(b'mine')
    with pytest.raises(ShapesError, match='not a shapes data set'):
        make_shapes(tmp_path, train=1, val=1)
    assert files(tmp_path) == {'photo.jpg': b'mine'}


@pytest.mark.parametrize('change', ['missing', 'changed', 'added'])
def test_tampered_data_set_is_refused(small: Path, change: str) -> None:
    image = small / 'train2017' / '000000000001.png'
    if change == 'missing':
        image.unlink()
    elif change == 'changed':
        image.write_bytes(b'')
    else:
        image = image.with_name('000000000002.png')
        image.write_bytes(b'')
    with pytest.raises(ShapesError, match=image.name):
        make_shapes(small, train=1, val=1, seed=SEED)


@pytest.mark.parametrize('moment', ['drawing', 'naming'])
def test_interrupted_attempt_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / 'shapes'
    with monkeypatch.context() as patch:
        where, what = dict(drawing=(mask_utils, 'encode'), naming=(os, 'rename'))[moment]
        patch.setattr(where, what, interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_shapes(target, train=1, val=1)
    assert not list(tmp_path.iterdir())
    assert make_shapes(target, train=1, val=1) == target


def test_leftovers_of_a_killed_attempt_are_no_obstacle(tmp_path: Path) -> None:
    unfinished = tmp_path / '.shapes-killed' / 'shapes' / 'train2017'
    unfinished.mkdir(parents=True)
    (tmp_path / 'shapes').mkdir()  # an empty folder does not count
    target = make_shapes(tmp_path / 'shapes', train=1, val=1)
    assert (target / 'shapes.json').is_file()


@pytest.mark.parametrize(
    ('name', 'value', 'least'),
    [('train', 0, 1), ('val', 0, 1), ('size', 63, 64), ('seed', -1, 0)],
)
def test_parameter_out_of_range_is_named(tmp_path: Path, name: str, value: int, least: int) -> None:
    with pytest.raises(ShapesError, match=f'{name} must be at least {least}, but is {value}'):
        make_shapes(tmp_path / 'shapes', **{name: value})


def test_mmdetection_loads_exactly_the_masks(root: Path, coco: COCO) -> None:
    dataset = DATASETS.build(
        dict(
            type='mmdet.CocoDataset',
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            data_root=str(root),
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='mmdet.LoadImageFromFile'),
                dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
            ],
        )
    )
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) == TRAIN
    for index in range(5):
        sample = dataset[index]
        annotations = coco.imgToAnns[sample['img_id']]
        assert sample['img'].shape == (128, 128, 3)
        assert not sample['gt_ignore_flags'].any()
        assert sample['gt_bboxes_labels'].tolist() == [a['category_id'] - 1 for a in annotations]
        expected = np.stack([coco.annToMask(annotation) for annotation in annotations])
        np.testing.assert_array_equal(sample['gt_masks'].to_ndarray(), expected)

"""Bad data is named before the run or when it is loaded, or left out and counted."""

import copy
import json
import math
import re
import shutil

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config
from mmengine.logging import MMLogger
from pycocotools import mask as mask_utils

from demo.shapes import CLASSES, PALETTE
from mmfish.datasets import LoadAnnotations, LoadImageFromFile
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.layouts import check_data
from mmfish.errors import DataError, UsageError

ANNOTATIONS = 'annotations/instances_train2017.json'


@pytest.fixture(scope='module')
def original(shapes):
    return json.loads((shapes / ANNOTATIONS).read_text())


@pytest.fixture
def root(shapes, tmp_path):
    """A copy of the shapes, for tests that damage it."""
    return shutil.copytree(shapes, tmp_path / 'data')


def spoiled(root, original, change):
    """Write the annotations after a change to them."""
    content = copy.deepcopy(original)
    content = change(content) or content
    text = content if isinstance(content, str) else json.dumps(content)
    (root / ANNOTATIONS).write_text(text)


def build(root, pipeline=None, **options):
    """Check and build the data set as a run does."""
    dataset = dict(
        data_root=str(root),
        ann_file=ANNOTATIONS,
        data_prefix=dict(img='train2017/'),
        **{'metainfo': dict(classes=CLASSES, palette=PALETTE), **options},
    )
    loader = dict(dataset=dict(type='CocoDataset', **dataset))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=loader))
    check_data(cfg, ('train',))
    check_annotation_files(cfg, ('train',))
    # To serialize collects garbage first, which takes longer than the rest.
    return CocoDataset(**dataset, pipeline=pipeline or loading(), serialize_data=False)


def loading(**options):
    return [
        LoadImageFromFile(**options),
        LoadAnnotations(with_bbox=True, with_mask=True),
        PackDetInputs(meta_keys=('img_path',)),
    ]


def put(part, **fields):
    """Set fields of the first image, category or annotation."""
    return lambda content: content[part][0].update(fields)


def drop(part, field):
    return lambda content: content[part][0].pop(field) and None


def twice(part):
    return lambda content: content[part].append(content[part][0])


def run_lengths(height, width, counts=None):
    mask = mask_utils.encode(np.ones((height, width), np.uint8, order='F'))
    return dict(size=[height, width], counts=counts or mask['counts'].decode())


# What is done to the annotations, and what the sentence must say.
REFUSED = {
    'no JSON': (lambda c: '{"images": [', 'no JSON'),
    'not even text': (lambda c: '\x00\x01', 'no JSON'),
    'a list': (lambda c: [c], 'no JSON object|list'),
    'deeply nested': (lambda c: '[' * 10**5, 'no JSON'),
    'other keys': (lambda c: dict(data_list=[], metainfo={}), '"images"'),
    'no categories': (lambda c: c.pop('categories') and None, '"categories"'),
    'images as a dict': (lambda c: c.update(images={}), '"images"'),
    'an image that is a name': (lambda c: c['images'].insert(0, 'a.jpg'), 'a.jpg'),
    'captions': (drop('annotations', 'bbox'), '"annotations".*no "bbox"'),
    'no size of an image': (drop('images', 'width'), '"images".*no "width"'),
    'no area': (drop('annotations', 'area'), 'no "area"'),
    'an empty image name': (put('images', file_name=''), 'lacks  and'),
    'a name with a broken escape': (
        lambda c: json.dumps(c).replace('"file_name": "', '"file_name": "\\x', 1),
        'no JSON',
    ),
    'an image without height': (put('images', height=0), 'no width or height'),
    'a size in words': (put('images', height='64'), "height '64'"),
    'an image twice': (twice('images'), '"images" has the id'),
    'an annotation twice': (twice('annotations'), '"annotations" has the id'),
    'an id that is a list': (put('annotations', image_id=[1]), 'image_id'),
    'of a missing image': (put('annotations', image_id=10**6), r'image 1000000, .*not among'),
    'of no category': (put('annotations', category_id=99), 'category 99'),
    'a box of three numbers': (put('annotations', bbox=[1, 2, 3]), r'\[1, 2, 3\]'),
    'a box in words': (put('annotations', bbox=['1', '2', '3', '4']), "'1'"),
    'a box of NaN': (put('annotations', bbox=[math.nan, 0, 9, 9]), 'nan'),
    'no box': (put('annotations', bbox=None), 'None'),
    'corners for all boxes': (
        lambda c: [a.update(bbox=[500, 500, 9, 9]) for a in c['annotations']] and None,
        'all .* annotations.*outside',
    ),
    'a polygon without brackets': (put('annotations', segmentation=[1, 1, 9, 1, 9, 9]), 'lists'),
    'a mask of text': (put('annotations', segmentation='mask.png'), 'neither polygons nor'),
    'RLE of another size': (put('annotations', segmentation=run_lengths(20, 20)), r'\[20, 20\]'),
    'RLE without counts': (put('annotations', segmentation=dict(size=[64, 64])), 'neither'),
    'RLE that is too long': (
        put('annotations', segmentation=run_lengths(64, 64, [0, 10**9])),
        'add up',
    ),
    'negative RLE': (put('annotations', segmentation=run_lengths(64, 64, [-5, 4101])), 'add up'),
    'counts of no kind': (put('annotations', segmentation=run_lengths(64, 64, 7)), 'int'),
    'a path upwards': (put('images', file_name='../../../../etc/hostname'), 'outside of'),
    'an absolute path': (put('images', file_name='/etc/hostname'), 'outside of'),
    'a path that looks harmless': (put('images', file_name='a/../../../x.jpg'), 'outside of'),
    'an image that is not there': (put('images', file_name='none.jpg'), 'lacks none.jpg'),
    'classes that the file does not have': (
        lambda c: [k.update(name=f'{k["name"]}s') for k in c['categories']] and None,
        "no category 'circle'",
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_annotations_are_refused_before_the_run(case, root, original):
    change, message = REFUSED[case]
    spoiled(root, original, change)
    with pytest.raises(UsageError, match=message) as error:
        build(root)
    assert str(root) in str(error.value)
    assert '\n' not in str(error.value)


LEFT_OUT = {
    'a box without area': (put('annotations', bbox=[5, 5, 0, 9]), '1 of .* without area'),
    'a box of less than a pixel': (put('annotations', bbox=[5, 5, 0.5, 9]), 'without area'),
    'a box outside': (put('annotations', bbox=[70, 70, 9, 9]), 'outside its image'),
    'a negative box': (put('annotations', bbox=[9, 9, -5, -5]), 'without area'),
    'a huge box outside': (put('annotations', bbox=[1e300, 1e300, 1e300, 1e300]), 'outside'),
    'an area of nothing': (put('annotations', area=0), 'without area'),
    'two points': (put('annotations', segmentation=[[1, 1, 9, 9]]), 'less than three points'),
    'an odd number': (put('annotations', segmentation=[[1, 1, 9, 1, 9, 9, 5]]), 'three points'),
    'no point': (put('annotations', segmentation=[[]]), 'less than three points'),
    'another category': (
        lambda c: (
            c['categories'].append(dict(id=9, name='star'))
            or c['annotations'][0].update(category_id=9)
        ),
        '1 annotations of 1 categories',
    ),
}


@pytest.fixture
def warnings(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize('case', LEFT_OUT)
def test_annotations_that_are_left_out_are_counted(case, root, original, warnings):
    change, message = LEFT_OUT[case]
    spoiled(root, original, change)
    dataset = build(root)
    loaded = [dataset[i]['data_samples'] for i in range(len(dataset))]
    boxes = sum(len(sample.gt_instances) for sample in loaded)
    assert boxes == len(original['annotations']) - 1
    (record,) = [r for r in warnings.records if 'instances_train2017' in r.getMessage()]
    assert re.search(message, record.getMessage())


def test_good_annotations_pass_silently(root, original, warnings):
    dataset = build(root)
    assert sum(len(s['instances']) for s in map(dataset.get_data_info, range(len(dataset)))) == len(
        original['annotations']
    )
    assert not [r for r in warnings.records if 'annotations' in r.getMessage()]


def test_images_without_annotations_are_enough_for_testing(root, original):
    spoiled(root, original, lambda c: c.pop('annotations') and None)
    assert len(build(root, test_mode=True)) == 16


def test_a_single_class_without_a_comma_is_named(root):
    with pytest.raises(DataError, match=r"\('circle',\)"):
        build(root, metainfo=dict(classes='circle'))


def empty_image(path):
    path.write_bytes(b'')


def text_image(path):
    path.write_text('<html>404 Not Found</html>')


def truncated_image(path):
    path.write_bytes(path.read_bytes()[:60])


def folder_image(path):
    path.unlink()
    path.mkdir()


def vanished_image(path):
    path.unlink()


IMAGES = [empty_image, text_image, truncated_image, folder_image, vanished_image]


@pytest.mark.parametrize('spoil', IMAGES)
def test_an_image_that_cannot_be_read_is_named(spoil, root, original):
    dataset = build(root)
    path = root / 'train2017' / original['images'][0]['file_name']
    spoil(path)
    with pytest.raises(DataError, match='ignore_empty=True') as error:
        dataset[0]
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('spoil', IMAGES)
def test_ignore_empty_skips_and_counts_images_that_cannot_be_read(spoil, root, original, warnings):
    dataset = build(root, loading(ignore_empty=True))
    path = root / 'train2017' / original['images'][0]['file_name']
    spoil(path)
    for _ in range(2):
        assert dataset[0]['data_samples'].img_path != str(path)
    # The image that takes its place is drawn at random: it can be the same one again.
    messages = [r.getMessage() for r in warnings.records if str(path) in r.getMessage()]
    assert len(messages) >= 2
    for count, message in enumerate(messages, start=1):
        assert f'{count} skipped so far' in message


# Problems that show only when an image or its masks are loaded.
MET_LATE = {
    'RLE of the size that the file gives a smaller image': (
        lambda c: (
            c['images'][0].update(width=80)
            or (
                [
                    a.update(segmentation=run_lengths(64, 80))
                    for a in c['annotations']
                    if a['image_id'] == c['images'][0]['id']
                ]
                and None
            )
        ),
        r'run lengths for an image of \[64, 80\]',
    ),
    'damaged RLE': (
        put('annotations', segmentation=run_lengths(64, 64, 'zz^^zz')),
        'Invalid RLE',
    ),
    'a polygon a billion pixels away': (
        put('annotations', segmentation=[[1, 1, 1e9, 1, 6e8, 9e8]]),
        'coordinate 1e[+]09, and the image is 64x64',
    ),
    'a polygon of NaN': (
        put('annotations', segmentation=[[1, 1, math.nan, 1, 9, 9]]),
        'coordinate nan',
    ),
    'a polygon of words': (
        put('annotations', segmentation=[['a', 'b', 'c', 'd', 'e', 'f']]),
        'cannot be used',
    ),
    'no mask': (drop('annotations', 'segmentation'), 'an object has no mask'),
}


@pytest.mark.parametrize('case', MET_LATE)
def test_masks_that_cannot_be_used_are_named_with_their_image(case, root, original):
    change, message = MET_LATE[case]
    spoiled(root, original, change)
    dataset = build(root)
    image = original['annotations'][0]['image_id']
    index = [data['img_id'] for data in map(dataset.get_data_info, range(16))].index(image)
    with pytest.raises(DataError, match=message) as error:
        dataset[index]
    assert f'(image {image})' in str(error.value)
    assert '\n' not in str(error.value)


SIZES = [(1, 1), (50, 20_000), (20_000, 50), (1, 3000), (3000, 1)]


def strange_sizes(root, original):
    """A training split of one image of each of the sizes, with an object that fills it."""
    content = dict(images=[], annotations=[], categories=original['categories'])
    for i, (height, width) in enumerate(SIZES, start=1):
        name = f'{height}x{width}.png'
        cv2.imwrite(str(root / 'train2017' / name), np.full((height, width, 3), 99, np.uint8))
        content['images'].append(dict(id=i, file_name=name, height=height, width=width))
        outline = [0, 0, width, 0, width, height, 0, height]
        content['annotations'].append(
            dict(
                id=i,
                image_id=i,
                category_id=1,
                bbox=[0, 0, width, height],
                area=width * height,
                iscrowd=0,
                segmentation=[outline],
            )
        )
    (root / ANNOTATIONS).write_text(json.dumps(content))


@pytest.mark.slow
def test_images_of_one_pixel_and_very_long_images_can_be_trained_on(config, root, original, tool):
    strange_sizes(root, original)
    # Resized as in COCO's configs, to half of it: the longest would take the memory of 50 images.
    resized = root / 'resized.py'
    resized.write_text(
        f"""_base_ = [{str(config)!r}]
train_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(667, 400), keep_ratio=True),
    dict(type='PackDetInputs'),
]))
"""
    )
    assert tool(*train(resized, root, 'train_cfg.max_iters=3')) is None


def train(config, root, *options):
    return (
        'train.py',
        config,
        '--data-root',
        root,
        *(['--cfg-options'] if options else []),
        *options,
    )


def test_train_names_what_is_wrong_with_the_annotations(config, root, original, tool):
    spoiled(root, original, put('annotations', image_id=10**6))
    message = tool(*train(config, root))
    assert message.startswith(f'train.py: {root}/{ANNOTATIONS}: annotation ')


def test_an_error_in_a_worker_process_is_one_sentence(config, root, original, tool):
    for image in original['images']:
        empty_image(root / 'train2017' / image['file_name'])
    message = tool(*train(config, root, 'train_dataloader.num_workers=1'))
    assert message.startswith(f'train.py: {root}/train2017/')
    assert 'cannot be read' in message


def test_an_empty_training_set_is_named(config, root, tool):
    message = tool(*train(config, root, 'train_dataloader.dataset.filter_cfg.min_size=100'))
    assert 'nothing to train on' in message


@pytest.mark.slow
def test_heads_with_fewer_classes_than_the_data_are_named(config, root, tool):
    option = 'model.roi_head.bbox_head.num_classes=2'
    message = tool(*train(config, root, option, 'model.roi_head.mask_head.num_classes=2'))
    assert 'model.roi_head.bbox_head has num_classes=2, and the data set has 3' in message

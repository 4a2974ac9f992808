import pytest
from mmengine.config import Config

from benchmarks.data import CLASSES, content, write_data
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.summary import FEW, WIDTH, contents_of, summary


def test_what_a_file_has_is_counted():
    data = content([f'{i}.png' for i in range(4)])
    cat, dog, fish, *others = data['annotations']
    cat['iscrowd'] = 1
    dog['bbox'][2] = 0
    fish['bbox'][0] = 100  # outside the image of 64 pixels
    data['categories'][2]['name'] = 'bird'
    data['categories'].append(dict(id=9, name='unused'))
    data['images'].append(dict(id=9, file_name='9.png', width=80, height=50))
    counted = contents_of(data, ('cat', 'dog'))
    assert counted.objects == dict(cat=3, dog=3)
    assert counted.other == dict(bird=4, unused=0)
    assert (counted.images, counted.empty) == (5, 2)
    assert (counted.crowds, counted.no_area) == (1, 1)
    assert counted.image_sizes.max(0).tolist() == [80, 64]
    assert counted.object_sizes.tolist() == [32] * 6
    assert len(others) == 9


def test_a_file_without_objects_is_counted_too():
    counted = contents_of({**content(['0.png']), 'annotations': []}, CLASSES)
    assert 'objects' in summary(dict(train=counted))


@pytest.mark.parametrize('number', [1, 3, 24, 25, 80, 700])
def test_the_table_has_at_most_80_columns_and_every_class(number):
    classes = [f'class {i}' for i in range(number - 1)] + ['a long name ' * 6]
    data = content(['0.png'], classes)
    text = summary({split: contents_of(data, ()) for split in ('train', 'val')})
    assert max(map(len, text.splitlines())) <= WIDTH
    for name in classes[:-1]:
        assert f'{name} ' in text


def test_classes_with_few_objects_are_named():
    many = content([f'{i}.png' for i in range(FEW)])
    few = {**many, 'annotations': many['annotations'][:-1]}
    assert 'fewer' not in summary(dict(train=contents_of(many, CLASSES)))
    text = summary(dict(train=contents_of(few, CLASSES), val=contents_of(few, CLASSES)))
    assert f'fewer than {FEW} objects in train: fish ({FEW - 1})' in text
    assert 'in val' not in text


def test_each_split_of_a_config_is_counted(tmp_path):
    write_data(tmp_path)
    cfg = dict(default_scope='mmdet')
    for split in ('train', 'val'):
        dataset = dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file=f'annotations/instances_{split}2017.json',
            metainfo=dict(classes=CLASSES),
        )
        cfg[f'{split}_dataloader'] = dict(dataset=dataset)
    found = check_annotation_files(Config(cfg), ('train', 'val'))
    assert {split: counted.images for split, counted in found.items()} == dict(train=4, val=2)

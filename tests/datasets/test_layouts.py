import json

import pytest
from mmengine.config import Config

from mmfish.datasets.layouts import check_data, set_data_root
from mmfish.errors import MissingDataError, UsageError


def write(root, split='train', images=('1.jpg', 'part/2.jpg'), present=('1.jpg', 'part/2.jpg')):
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    content = dict(images=[dict(id=i, file_name=name) for i, name in enumerate(images)])
    (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(content))
    (root / f'{split}2017').mkdir()
    for name in present:
        path = root / f'{split}2017' / name
        path.parent.mkdir(exist_ok=True)
        path.touch()


def config(root='data/coco/', split='train'):
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file=f'annotations/instances_{split}2017.json',
        data_prefix=dict(img=f'{split}2017/'),
    )
    return Config(
        dict(
            default_scope='mmdet',
            data_root='data/coco/',
            train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset)),
            val_evaluator=[dict(ann_file='data/coco/annotations/instances_val2017.json')],
        )
    )


def test_a_complete_data_set_passes(tmp_path):
    write(tmp_path)
    check_data(config(tmp_path), ('train',))


def test_splits_that_a_run_does_not_use_may_be_missing(tmp_path):
    check_data(config(tmp_path), ('val',))


@pytest.mark.parametrize(
    ('missing', 'named'),
    [
        (None, 'annotations/instances_train2017.json'),
        ('train2017', 'train2017'),
        ('train2017/part/2.jpg', 'part/2.jpg'),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(tmp_path, missing, named):
    if missing:
        write(tmp_path, present=('1.jpg',))
    if missing == 'train2017':
        (tmp_path / 'train2017/1.jpg').unlink()
        (tmp_path / 'train2017').rmdir()
    with pytest.raises(MissingDataError) as error:
        check_data(config(tmp_path), ('train',))
    for part in (str(tmp_path), named, 'cocodataset.org', '--data-root', 'make demo'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)


def test_an_incomplete_folder_is_counted(tmp_path):
    write(tmp_path, present=('1.jpg',))
    with pytest.raises(MissingDataError, match='1 of the 2 images'):
        check_data(config(tmp_path), ('train',))


def test_segmentation_maps_are_looked_for(tmp_path):
    write(tmp_path)
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.dataset.data_prefix.seg = 'stuffthingmaps/train2017/'
    with pytest.raises(MissingDataError, match=r'no .*stuffthingmaps.*segmentation maps'):
        check_data(cfg, ('train',))
    (tmp_path / 'stuffthingmaps/train2017').mkdir(parents=True)
    check_data(cfg, ('train',))


def test_remote_storage_is_left_alone():
    check_data(config('s3://bucket/coco/'), ('train',))


def test_data_root_moves_data_sets_evaluators_and_the_variable(tmp_path):
    cfg = config()
    set_data_root(cfg, tmp_path)
    write(tmp_path)
    check_data(cfg, ('train',))
    assert cfg.data_root == f'{tmp_path}/'
    assert cfg.val_evaluator[0].ann_file == f'{tmp_path}/annotations/instances_val2017.json'


def test_a_data_root_for_data_that_lie_in_no_folder_is_an_error():
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='mmfish.Digits', split='train'))))
    with pytest.raises(UsageError, match='data_root'):
        set_data_root(cfg, 'elsewhere')


def imagenet(root):
    dataset = dict(type='ImageNet', data_root=str(root), split='val')
    return Config(dict(default_scope='mmpretrain', val_dataloader=dict(dataset=dataset)))


def test_imagenet_by_folders_of_classes_or_by_a_list_passes(tmp_path):
    by_folders, by_list = tmp_path / 'folders', tmp_path / 'list'
    for i in range(1000):
        (by_folders / f'val/n{i:08d}').mkdir(parents=True)
    (by_list / 'val').mkdir(parents=True)
    (by_list / 'meta').mkdir()
    (by_list / 'meta/val.txt').touch()
    for root in (by_folders, by_list):
        check_data(imagenet(root), ('val',))


@pytest.mark.parametrize(
    ('present', 'named'), [((), 'there is no '), (('n01440764', 'n01443537'), 'has 2 folders')]
)
def test_what_is_missing_of_imagenet_is_named_with_what_to_do(tmp_path, present, named):
    for name in present:
        (tmp_path / 'val' / name).mkdir(parents=True)
    with pytest.raises(MissingDataError) as error:
        check_data(imagenet(tmp_path), ('val',))
    for part in (str(tmp_path / 'val'), named, 'image-net.org', '--data-root', 'digits'):
        assert part in str(error.value)
    assert '\n' not in str(error.value)

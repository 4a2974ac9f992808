import json

import pytest
from mmdet.datasets import CocoDataset, LVISV05Dataset
from mmengine.config import Config
from mmpretrain.datasets import ImageNet

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


def test_missing_segmentation_maps_are_named(tmp_path):
    write(tmp_path)
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.dataset.data_prefix.seg = 'stuffthingmaps/train2017/'
    with pytest.raises(MissingDataError, match=r'no .*stuffthingmaps.*segmentation maps'):
        check_data(cfg, ('train',))
    (tmp_path / 'stuffthingmaps/train2017').mkdir(parents=True)
    check_data(cfg, ('train',))


def test_remote_storage_is_left_alone():
    check_data(config('s3://bucket/coco/'), ('train',))


def test_data_root_changes_data_sets_evaluators_and_the_variable(tmp_path):
    cfg = config()
    set_data_root(cfg, tmp_path)
    write(tmp_path)
    check_data(cfg, ('train',))
    assert cfg.data_root == f'{tmp_path}/'
    assert cfg.val_evaluator[0].ann_file == f'{tmp_path}/annotations/instances_val2017.json'


def mixed(*roots):
    """A config that trains on a data set in each root but the last, and evaluates on the last."""
    parts = [dict(type=CocoDataset, data_root=root, ann_file='a.json') for root in roots]
    return Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=tuple(parts[:-1]))),
            val_dataloader=dict(dataset=parts[-1]),
            val_evaluator=dict(type='CocoMetric', ann_file=f'{roots[-1].rstrip("/")}/a.json'),
        )
    )


def test_data_root_for_data_sets_in_several_folders_is_refused():
    cfg = mixed('data/coco/', 'data/lvis', 'data/coco/')
    before = cfg.to_dict()
    with pytest.raises(UsageError, match=r'data/coco, data/lvis.*--cfg-options') as error:
        set_data_root(cfg, 'elsewhere')
    assert '\n' not in str(error.value)
    assert cfg.to_dict() == before


def test_folders_below_the_old_data_root_go_below_the_new_one():
    cfg = mixed('data/coco/extra/', 'data/coco', 'data/coco/')
    set_data_root(cfg, 'elsewhere')
    roots = [dataset.data_root for dataset in cfg.train_dataloader.dataset.datasets]
    assert roots == ['elsewhere/extra/', 'elsewhere/']
    assert cfg.val_dataloader.dataset.data_root == 'elsewhere/'
    assert cfg.val_evaluator.ann_file == 'elsewhere/a.json'
    assert cfg.val_dataloader.dataset.type is CocoDataset


def test_a_folder_with_the_same_prefix_is_another_folder():
    with pytest.raises(UsageError, match=r'data/coco, data/coco2017'):
        set_data_root(mixed('data/coco2017', 'data/coco'), 'elsewhere')


@pytest.mark.parametrize(
    'options',
    [
        dict(type='CocoPanopticDataset'),
        dict(type=LVISV05Dataset),
        dict(type='mmdet.Objects365V2Dataset'),
        dict(type='WIDERFaceDataset'),
        dict(backend_args=dict(backend='local')),
    ],
)
def test_other_formats_and_storage_are_left_to_mmdetection(tmp_path, options):
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.dataset.update(options)
    check_data(cfg, ('train',))


@pytest.mark.parametrize('kind', ['CocoDataset', 'mmdet.CocoDataset', CocoDataset])
def test_coco_is_recognised_however_it_is_written(tmp_path, kind):
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.dataset.type = kind
    with pytest.raises(MissingDataError, match='instances_train2017'):
        check_data(cfg, ('train',))


@pytest.mark.parametrize('kind', ['ImageNet', 'mmpretrain.ImageNet', ImageNet])
def test_imagenet_is_recognised_however_it_is_written(tmp_path, kind):
    cfg = imagenet(tmp_path)
    cfg.val_dataloader.dataset.type = kind
    with pytest.raises(MissingDataError, match='image-net'):
        check_data(cfg, ('val',))


def test_data_root_for_data_without_a_folder_is_an_error():
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

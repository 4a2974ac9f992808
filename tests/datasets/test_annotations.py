"""Which annotation files are checked, and for which classes; tests/hostile has what is refused."""

import json
from typing import ClassVar

import pytest
from mmdet.datasets import CityscapesDataset, CocoDataset, LVISV1Dataset, Objects365V1Dataset
from mmengine.config import Config
from mmengine.registry import DATASETS

from mmfish.datasets import annotations
from mmfish.datasets.annotations import check_annotation_files, check_annotations
from mmfish.errors import DataError

GOOD = dict(
    images=[dict(id=1, file_name='1.jpg', height=64, width=64)],
    categories=[dict(id=1, name='car'), dict(id=2, name='dog')],
    annotations=[
        dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, segmentation=[]),
    ],
)


class OwnReading(CocoDataset):
    """A user's subclass of CocoDataset that reads another format."""

    METAINFO: ClassVar = dict(classes=('car',))

    def parse_data_info(self, raw_data_info):
        return dict(img_path='', instances=[])


class OwnClasses(CocoDataset):
    """A user's subclass of CocoDataset with other classes."""

    METAINFO: ClassVar = dict(classes=('car', 'bus'))


class OwnArguments(OwnClasses):
    def __init__(self, file):
        super().__init__(ann_file=file)


def write(path, content=GOOD):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def check(*datasets):
    loader = dict(dataset=dict(type='ConcatDataset', datasets=list(datasets)))
    check_annotation_files(Config(dict(default_scope='mmdet', train_dataloader=loader)), ('train',))


def test_a_file_that_several_data_sets_share_is_read_once(tmp_path, monkeypatch):
    reads = []
    read = annotations.read_json
    monkeypatch.setattr(
        annotations,
        'read_json',
        lambda file, **options: reads.append(file) or read(file, **options),
    )
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / 'a.json')
    for name in (file, 'a.json'):
        dataset = dict(type='CocoDataset', ann_file=name, metainfo=dict(classes=('car',)))
        check(dataset, dict(dataset, metainfo=dict(classes=('dog', 'car'))))
    assert reads == [file, file]


@pytest.mark.parametrize(
    ('options', 'lacking'),
    [
        (dict(type='CocoDataset'), "'person'"),
        (dict(type='mmdet.CityscapesDataset'), "'person'"),
        (dict(type=CityscapesDataset, metainfo=dict(classes=('rider', 'car'))), "'rider'"),
        (dict(type=OwnClasses), "'bus'"),
        (dict(type=CocoDataset, metainfo=dict(classes='names.txt')), "'bus'"),
        (dict(type='CityscapesDataset', _scope_='mmdet'), "'person'"),
    ],
)
def test_classes_are_found_as_in_mmdetection(options, lacking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('bus\ndog\n')
    with pytest.raises(DataError, match=f'no category {lacking}'):
        check(dict(options, ann_file=write(tmp_path / 'a.json')))


@pytest.mark.parametrize(
    'options',
    [
        dict(type='CocoPanopticDataset'),
        dict(type=LVISV1Dataset),
        dict(type=Objects365V1Dataset),
        dict(type='mmdet.V3DetDataset'),
        dict(type='CrowdHumanDataset'),
        dict(type=OwnReading),
        dict(type=OwnArguments),
        dict(type='NobodysDataset'),
        dict(type='CocoDataset', backend_args=dict(backend='local')),
        dict(type='CocoDataset', data_root='s3://bucket/'),
    ],
)
def test_other_formats_and_storage_are_left_to_mmdetection(options, tmp_path):
    check(dict(options, ann_file=write(tmp_path / 'a.json', 'no JSON')))


def test_mmdetection_keeps_its_own_reader(tmp_path):
    reader = CocoDataset.COCOAPI
    options = dict(ann_file=write(tmp_path / 'a.json'), metainfo=dict(classes=('car',)))
    check(dict(options, type='CocoDataset'))
    assert CocoDataset.COCOAPI is reader
    dataset = DATASETS.build(dict(options, type='mmdet.CocoDataset', data_prefix=dict(img='')))
    assert len(dataset) == 1


SEGMENTATIONS = [
    [[1, 1, 9, 1, 9, 9]],
    [[1.5, -1, 9e0, 1.25e-1, 9, 9], [0, 0, 1, 0, 1, 1, 0, 1]],
    [[1, 1, 9, 1]],
    [[1, 1, 9, 1, 9, 9, 9]],
    [[1, 1, 9, 1, 9, 9], []],
    [],
    dict(size=[64, 64], counts=[0, 4096]),
]


@pytest.mark.parametrize('indent', [None, 1])
def test_only_good_polygons_are_skipped_in_parsing(indent, tmp_path):
    content = dict(GOOD, annotations=[dict(segmentation=value, id=1) for value in SEGMENTATIONS])
    text = json.dumps(content, indent=indent)
    (tmp_path / 'a.json').write_text(text)
    read = annotations.read_json(str(tmp_path / 'a.json'), polygons=False)
    for before, after in zip(content['annotations'], read['annotations'], strict=True):
        assert after['segmentation'] in (before['segmentation'], [])
    for number in range(2, len(SEGMENTATIONS)):
        assert read['annotations'][number] == content['annotations'][number]


@pytest.mark.parametrize('separators', [(', ', ': '), (',', ':')])
def test_good_polygons_are_not_parsed_which_makes_large_files_fast(separators, tmp_path):
    content = dict(GOOD, annotations=[dict(segmentation=value) for value in SEGMENTATIONS[:2]])
    (tmp_path / 'a.json').write_text(json.dumps(content, separators=separators))
    read = annotations.read_json(str(tmp_path / 'a.json'), polygons=False)
    assert [annotation['segmentation'] for annotation in read['annotations']] == [[], []]


@pytest.mark.parametrize('number', ['01', '1.', '.5', '--1', '1 2', '1,,2', 'x', '1.2.3', '1,'])
def test_invalid_json_numbers_in_polygons_are_refused(number, tmp_path):
    text = json.dumps(GOOD).replace('"segmentation": []', f'"segmentation": [[1,1,9,1,9,{number}]]')
    with pytest.raises(DataError, match='no JSON'):
        check(dict(type='CocoDataset', ann_file=write(tmp_path / 'a.json', text)))


def test_good_content_passes():
    check_annotations(GOOD, 'a.json')
    check_annotations({key: GOOD[key] for key in ('images', 'categories')}, 'a.json')

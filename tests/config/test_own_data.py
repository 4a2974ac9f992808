"""`own_data`: a config of MMDetection for the data set in a folder."""

import copy
import json

import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS

import mmfish
from benchmarks.data import CLASSES, content, write, write_data
from mmfish.config.own_data import own_data
from mmfish.config.paths import config_folder, dicts
from mmfish.config.plug_in import plug_in
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.layouts import check_data, set_data_root
from mmfish.datasets.split import is_validation
from mmfish.errors import DataError, MissingDataError, UsageError

MASKS = str(config_folder() / 'mask_rcnn_fishnet150_fpn_coco.py')
BOXES = str(config_folder() / 'faster_rcnn_fishnet150_fpn_coco.py')
TRAIN, VAL = [f'{i}.png' for i in range(4)], ['4.png', '5.png']


def check(cfg, train=4, val=2, classes=CLASSES):
    """Check a config as a run does, and read its data."""
    assert cfg.train_dataloader.dataset.metainfo.classes == tuple(classes)
    check_data(cfg, ('train', 'val', 'test'))
    check_annotation_files(cfg, ('train', 'val', 'test'))
    for split, count in (('train', train), ('val', val)):
        dataset = DATASETS.build({**cfg[f'{split}_dataloader'].dataset, '_scope_': 'mmdet'})
        assert len(dataset) == count
        assert dataset[0]['inputs'].shape[0] == 3
        labels = [i['bbox_label'] for i in dataset.get_data_info(0)['instances']]
        assert labels == list(range(len(classes)))
        assert dataset.metainfo['classes'] == tuple(classes)
    for split in ('val', 'test'):
        assert METRICS.build({**cfg[f'{split}_evaluator'], '_scope_': 'mmdet'})
    counts = [node['num_classes'] for node in dicts(cfg.model) if 'num_classes' in node]
    assert set(counts) == {len(classes)}


LAYOUTS = {
    'COCO 2017': (
        ('annotations/instances_train2017.json', 'train2017'),
        ('annotations/instances_val2017.json', 'val2017'),
    ),
    'files beside folders': (('train.json', 'train'), ('val.json', 'val')),
    'all images in one folder': (
        ('annotations/train.json', 'images'),
        ('annotations/val.json', 'images'),
    ),
    'folders of images within one': (
        ('annotations/instances_train.json', 'images/train'),
        ('annotations/instances_val.json', 'images/val'),
    ),
    'images beside the files': (('instances_train.json', '.'), ('instances_val.json', '.')),
    'Roboflow': (
        ('train/_annotations.coco.json', 'train'),
        ('valid/_annotations.coco.json', 'valid'),
    ),
    'a task of CVAT for each split': (
        ('train/annotations/instances_default.json', 'train/images'),
        ('validation/annotations/instances_default.json', 'validation/images'),
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_annotations_and_images_are_found_in_the_layout(tmp_path, layout):
    (train, train_images), (val, val_images) = LAYOUTS[layout]
    # Images of one name in several folders do not belong to the same split.
    same_names = train_images != val_images
    for file, images, names in (
        (train, train_images, TRAIN),
        (val, val_images, TRAIN[:2] if same_names else VAL),
    ):
        write(tmp_path / file, content(names), tmp_path / images)
    (tmp_path / 'annotations').mkdir(exist_ok=True)
    (tmp_path / 'annotations/captions_train2017.json').write_text('{}')
    cfg = mmfish.own_data(MASKS, tmp_path)
    check(cfg)
    for split, images in (('train', train_images), ('val', val_images)):
        folder = cfg[f'{split}_dataloader'].dataset.data_prefix.img
        assert (tmp_path / folder).resolve() == (tmp_path / images).resolve()


def test_names_of_images_may_have_folders(tmp_path):
    for split, names in (('train', TRAIN), ('val', VAL)):
        names = [f'images/{split}/{name}' for name in names]
        write(tmp_path / f'{split}.json', content(names), tmp_path)
    check(own_data(MASKS, tmp_path))


def test_a_test_split_is_tested_on_if_it_has_annotations(tmp_path):
    write_data(tmp_path)
    file = tmp_path / 'annotations/instances_test2017.json'
    write(file, content(['test0.png']), tmp_path / 'test2017')
    cfg = own_data(MASKS, tmp_path)
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/instances_test2017.json'
    assert cfg.test_evaluator.ann_file == str(file)
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'annotations/instances_val2017.json')
    check(cfg)
    write(file, {**content(['test0.png']), 'annotations': []})
    cfg = own_data(MASKS, tmp_path)
    assert cfg.test_dataloader.dataset.ann_file == 'annotations/instances_val2017.json'


@pytest.mark.parametrize('file', ['held_out.json', 'test.json', 'val.json'])
def test_one_split_is_enough_to_test_with(tmp_path, file):
    write(tmp_path / file, content(['a.png', 'b.png']), tmp_path / 'images')
    with pytest.raises(UsageError):
        own_data(MASKS, tmp_path)
    cfg = own_data(MASKS, tmp_path, training=False)
    assert cfg.test_dataloader.dataset.ann_file == file
    assert cfg.test_evaluator.ann_file == str(tmp_path / file)
    check_data(cfg, ('test',))


def test_one_file_is_split_by_the_names_of_its_images(tmp_path):
    names = [f'{i}.png' for i in range(20)]
    write(tmp_path / 'data/annotations/instances_default.json', content(names[:12]))
    write(tmp_path / 'all.json', content(names), tmp_path / 'data/images')
    (tmp_path / 'all.json').rename(tmp_path / 'all')
    halves = {}
    for count in (12, 20):
        write(tmp_path / 'data/annotations/instances_default.json', content(names[:count]))
        before = sorted(path for path in (tmp_path / 'data').rglob('*'))
        cfg = Config.fromfile(MASKS)
        cfg.work_dir = str(tmp_path / 'work')
        cfg = own_data(cfg, tmp_path / 'data', val_fraction='0.3')
        assert sorted(path for path in (tmp_path / 'data').rglob('*')) == before
        halves[count] = {}
        for split in ('train', 'val'):
            file = tmp_path / f'work/own_data/{split}_0.3.json'
            assert cfg[f'{split}_dataloader'].dataset.ann_file == str(file)
            images = json.loads(file.read_text())['images']
            halves[count][split] = {image['file_name'] for image in images}
        check(cfg, len(halves[count]['train']), len(halves[count]['val']))
        assert halves[count]['val'] == {name for name in names[:count] if is_validation(name, 0.3)}
        assert halves[count]['train'] | halves[count]['val'] == set(names[:count])
        assert not halves[count]['train'] & halves[count]['val']
    assert halves[12]['val'] <= halves[20]['val']
    assert halves[12]['train'] <= halves[20]['train']
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'work/own_data/val_0.3.json')


def test_a_work_directory_that_cannot_be_written_to_is_one_sentence(tmp_path):
    write(tmp_path / 'data/annotations/instances_default.json', content(TRAIN), tmp_path / 'data')
    (tmp_path / 'work').touch()
    cfg = Config.fromfile(MASKS)
    cfg.work_dir = str(tmp_path / 'work')
    with pytest.raises(UsageError, match=r'own_data/train_0\.5\.json cannot be written') as raised:
        own_data(cfg, tmp_path / 'data', val_fraction=0.5)
    assert '\n' not in str(raised.value)


def test_the_share_of_validation_is_about_the_fraction():
    assert 0.18 < sum(is_validation(f'{i}.png', 0.2) for i in range(5000)) / 5000 < 0.22


def rewritten(folder, change, splits=('train', 'val')):
    for split in splits:
        file = folder / f'annotations/instances_{split}2017.json'
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))
    return folder


def test_ids_of_categories_may_have_holes(tmp_path):
    def change(data):
        for entry in (*data['categories'], *data['annotations']):
            key = 'category_id' if 'category_id' in entry else 'id'
            entry[key] = entry[key] ** 3 + 10

    check(own_data(MASKS, rewritten(write_data(tmp_path), change)))


@pytest.mark.parametrize('name', ['background', '_background_', 'animals', 'cat'])
def test_a_category_that_a_tool_writes_in_front_is_no_class(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    def change(data):
        for category in data['categories']:
            category['supercategory'] = name
        data['categories'].insert(0, dict(id=0, name=name, supercategory='none'))

    cfg = own_data(MASKS, rewritten(write_data(tmp_path / 'data'), change))
    assert cfg.train_dataloader.dataset.metainfo.classes == CLASSES
    # Only where a class has its name MMDetection would take it for one: not with a file as it is.
    assert ('own_data' in cfg.train_dataloader.dataset.ann_file) == (name == 'cat')


def test_a_category_in_front_that_a_tool_writes_is_left_out_of_the_files_if_it_must(
    tmp_path, monkeypatch
):
    def change(data):
        for category in data['categories']:
            category['supercategory'] = 'cat'
        data['categories'].insert(0, dict(id=0, name='cat', supercategory='none'))

    monkeypatch.chdir(tmp_path)
    check(own_data(MASKS, rewritten(write_data(tmp_path / 'data'), change)))


def test_a_class_after_which_the_others_are_named_may_lack_objects_in_one_file(tmp_path):
    def change(data):
        for category in data['categories']:
            category['supercategory'] = 'cat'
        data['annotations'] = [a for a in data['annotations'] if a['category_id'] != 1]

    cfg = own_data(MASKS, rewritten(write_data(tmp_path), change, splits=('val',)))
    assert cfg.val_dataloader.dataset.metainfo.classes == CLASSES


def test_other_json_files_beside_the_annotations_are_left_alone(tmp_path):
    write_data(tmp_path)
    write(tmp_path / 'train2017/train_0.json', dict(shapes=[], imagePath='train0.png'))
    write(tmp_path / 'val_results.json', [dict(image_id=1)])
    check(own_data(MASKS, tmp_path))


def test_annotations_are_not_rewritten_into_the_folder(tmp_path):
    cfg = Config.fromfile(MASKS)
    cfg.work_dir = str(tmp_path / 'data/run')
    rewritten(write_data(tmp_path / 'data'), lambda d: d['categories'].reverse(), splits=('val',))
    with pytest.raises(UsageError, match='name another one with --work-dir'):
        own_data(cfg, tmp_path / 'data')


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        ('fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py', 'learns from proposals in a file'),
        ('crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py', 'works for one class only.*3'),
    ],
)
def test_detectors_that_cannot_learn_the_data_are_refused(folder, config, sentence):
    with pytest.raises(UsageError, match=sentence):
        own_data(f'mmdet::{config}', folder)


def test_images_are_read_from_the_folder_whatever_storage_the_config_names(folder):
    cfg = own_data('mmdet::dsdl/openimagesv6.py', folder)
    assert not any('backend_args' in step for step in cfg.train_dataloader.dataset.pipeline)


def test_a_background_with_objects_is_a_class(tmp_path):
    names = ('background', *CLASSES)
    cfg = own_data(MASKS, write_data(tmp_path, classes=names))
    check(cfg, classes=names)


def test_the_order_of_the_training_file_holds_for_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / 'data')
    rewritten(tmp_path / 'data', lambda data: data['categories'].reverse(), splits=('val',))
    cfg = own_data(MASKS, tmp_path / 'data')
    check(cfg)
    assert cfg.val_evaluator.ann_file.endswith('own_data/val.json')
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train2017.json'


def test_the_layout_and_classes_of_coco_change_only_the_paths(tmp_path):
    names = CocoDataset.METAINFO['classes']
    cfg = own_data(MASKS, write_data(tmp_path, classes=names))
    expected = Config.fromfile(MASKS)
    set_data_root(expected, tmp_path)
    assert cfg.to_dict() == expected.to_dict()


def test_coco_classes_in_another_order_are_data_of_ones_own(tmp_path):
    names = CocoDataset.METAINFO['classes'][::-1]
    cfg = own_data(MASKS, write_data(tmp_path, classes=names))
    assert cfg.train_dataloader.dataset.metainfo.classes == names


def test_a_plain_path_change_is_left_to_the_layout_of_other_data_sets(tmp_path):
    config = 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py'
    for year in ('VOC2007', 'VOC2012'):
        for name in ('trainval', 'test'):
            file = tmp_path / year / f'ImageSets/Main/{name}.txt'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    cfg = own_data(config, tmp_path)
    assert len(cfg.train_dataloader.dataset.dataset.datasets) == 2
    assert cfg.model.bbox_head.num_classes == 20
    assert cfg.val_dataloader.dataset.data_root == f'{tmp_path}/'


def test_more_classes_than_colours_get_colours_of_their_own(tmp_path):
    names = [f'class {i}' for i in range(100)]
    cfg = own_data(BOXES, write_data(tmp_path, classes=names))
    assert len(cfg.train_dataloader.dataset.metainfo.palette) == 100


CONFIGS = (
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'queryinst/queryinst_r50_fpn_1x_coco.py',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    'seesaw_loss/cascade-mask-rcnn_r101_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
    'cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py',
    'pascal_voc/retinanet_r50_fpn_1x_voc0712.py',
    'openimages/ssd300_32xb8-36e_openimages.py',
    'openimages/faster-rcnn_r50_fpn_32xb2-cas-1x_openimages.py',
    'objects365/retinanet_r50_fpn_1x_objects365v1.py',
    'ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py',
    'lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
    'rpn/rpn_r50_fpn_1x_coco.py',
    'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py',
    'mm_grounding_dino/coco/grounding_dino_swin-t_finetune_16xb4_1x_coco.py',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('own'))


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_of_mmdetection(name, folder):
    cfg = own_data(f'mmdet::{name}', folder)
    for split in ('train', 'val', 'test'):
        leaves = [d for d in dicts(cfg[f'{split}_dataloader'].dataset) if 'ann_file' in d]
        assert len(leaves) == (2 if 'soft_teacher' in name and split == 'train' else 1)
        for dataset in leaves:
            assert dataset.type in ('CocoDataset', 'mmdet.CocoDataset')
            assert dataset.metainfo.classes == CLASSES
            unread = {k: v for k, v in dataset.items() if k not in ('type', '_scope_', 'pipeline')}
            CocoDataset(**unread, lazy_init=True)
    for split in ('val', 'test'):
        metric = {**cfg[f'{split}_evaluator'], '_scope_': 'mmdet'}
        assert METRICS.build(metric).__class__.__name__ == 'CocoMetric'
    counts = set()
    for node in dicts({k: v for k, v in cfg.model.items() if k not in ('rpn_head', 'backbone')}):
        counts |= {node[key] for key in ('num_classes', 'num_things_classes') if key in node}
        assert node.get('num_stuff_classes', 0) == 0
        if isinstance(node.get('class_weight'), list):
            assert len(node['class_weight']) == 4
    assert counts <= ({256} if 'grounding' in name else {3})


def test_own_data_and_plug_in_go_in_either_order(folder):
    config = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    one = own_data(plug_in(config, 'fishnet77'), folder)
    other = plug_in(own_data(config, folder), 'fishnet77')
    assert one.to_dict() == other.to_dict()


def test_the_config_is_not_changed(folder):
    cfg = Config.fromfile(MASKS)
    before = copy.deepcopy(cfg.to_dict())
    own_data(cfg, folder)
    assert cfg.to_dict() == before


def test_metrics_of_ones_own_and_options_of_cocos_stay(folder):
    cfg = Config.fromfile(BOXES)
    cfg.val_evaluator.classwise = True
    cfg.val_evaluator = [
        cfg.val_evaluator,
        dict(type='mmdet.DumpDetResults', out_file_path='a.pkl'),
    ]
    first, second = own_data(cfg, folder).val_evaluator
    assert first.classwise
    assert first.metric == 'bbox'
    assert second.type == 'mmdet.DumpDetResults'


def edit(split='train', part=None, **fields):
    """A change of the first entry of a part, or of a whole part, of one file."""

    def change(folder):
        def of(data):
            data.update(fields) if part is None else data[part][0].update(fields)

        rewritten(folder, of, splits=(split,))

    return change


def remove(*names):
    def change(folder):
        for name in names:
            path = folder / name
            if path.is_file():
                path.unlink()
            else:
                path.rename(folder.parent / path.name)

    return change


def put(name, text):
    def change(folder):
        (folder / name).write_text(text)

    return change


ANNOTATIONS = 'annotations/instances_{}2017.json'
BAD = {
    'an empty folder': (
        remove('annotations', 'train2017', 'val2017'),
        {},
        MissingDataError,
        'has no annotations',
    ),
    'no annotations': (remove('annotations'), {}, MissingDataError, 'has no annotations: expected'),
    'only a split for validation': (
        remove(ANNOTATIONS.format('train')),
        {},
        MissingDataError,
        'has annotations for val only',
    ),
    'no JSON': (put(ANNOTATIONS.format('train'), '{'), {}, DataError, 'no JSON'),
    'a list': (put(ANNOTATIONS.format('train'), '[]'), {}, DataError, 'no JSON object'),
    'no categories': (edit(categories=[]), {}, DataError, 'no list of "categories"'),
    'a category without a name': (
        edit(part='categories', name=None),
        {},
        DataError,
        'the name None',
    ),
    'a category with the name of another': (
        edit(part='categories', name='dog'),
        {},
        DataError,
        "2 categories with the name 'dog'",
    ),
    'other categories in val': (
        edit('val', 'categories', name='horse'),
        {},
        DataError,
        "has the category 'cat' and 1 others",
    ),
    'no images in the folder': (
        remove('train2017'),
        {},
        MissingDataError,
        'expected train0.png in',
    ),
    'no file_name': (edit(part='images', file_name=''), {}, DataError, "file_name ''"),
    'several files for a split': (
        put(ANNOTATIONS.format('train_more_'), '{"images": [], "categories": []}'),
        {},
        UsageError,
        'several annotation files for train',
    ),
    'no validation': (
        remove(ANNOTATIONS.format('val')),
        {},
        UsageError,
        r'no annotations for validation.*--val-fraction 0\.2',
    ),
    'a fraction beside a split for validation': (
        lambda folder: None,
        dict(val_fraction=0.2),
        UsageError,
        'has one for validation already',
    ),
    'a fraction of nothing': (
        remove(ANNOTATIONS.format('val')),
        dict(val_fraction=0.0001),
        UsageError,
        'leaves no image of the 4',
    ),
    **{
        f'a fraction {value}': (
            remove(ANNOTATIONS.format('val')),
            dict(val_fraction=value),
            UsageError,
            f'--val-fraction {value} is no share',
        )
        for value in ('0', '1', 'abc', 'nan', '-0.5')
    },
    'boxes for a config with masks': (
        lambda folder: write_data(folder, masks=False),
        {},
        UsageError,
        r'learns masks.*boxes only.*faster_rcnn_fishnet150_fpn_coco\.py',
    ),
    'some objects without masks': (
        edit(part='annotations', segmentation=[]),
        {},
        UsageError,
        '1 of 12 objects',
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input_is_one_sentence(tmp_path, case):
    change, options, kind, named = BAD[case]
    folder = write_data(tmp_path / 'data')
    change(folder)
    with pytest.raises(kind, match=named) as error:
        own_data(MASKS, folder, **options)
    assert '\n' not in str(error.value)
    assert str(folder) in str(error.value) or '--val-fraction' in str(error.value)


@pytest.mark.parametrize('name', ['nowhere', 'file'])
def test_what_is_no_folder_is_named(tmp_path, name):
    (tmp_path / 'file').touch()
    with pytest.raises(MissingDataError, match=f'the data set, {tmp_path}/{name}, is'):
        own_data(MASKS, tmp_path / name)


@pytest.mark.parametrize(
    ('config', 'named'),
    [
        (
            'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
            'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        ),
        ('htc/htc_r50_fpn_1x_coco.py', 'htc/htc-without-semantic_r50_fpn_1x_coco.py'),
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'),
        ('scnet/scnet_r50_fpn_1x_coco.py', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'),
    ],
)
def test_segmentation_maps_are_refused_with_a_config_without(folder, config, named):
    with pytest.raises(UsageError, match=f'learns segmentation maps.*such as mmdet::{named}$'):
        own_data(f'mmdet::{config}', folder)


@pytest.mark.parametrize(
    ('config', 'named'),
    [
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
        (
            'cascade_rcnn/cascade-mask-rcnn_r101_fpn_20e_coco.py',
            'cascade_rcnn/cascade-rcnn_r101_fpn_20e_coco.py',
        ),
        ('gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py'),
        ('rtmdet/rtmdet-ins_s_8xb32-300e_coco.py', 'rtmdet/rtmdet_s_8xb32-300e_coco.py'),
        ('solo/solo_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    ],
)
def test_the_config_for_boxes_that_is_named_is_the_nearest(tmp_path, config, named):
    with pytest.raises(UsageError, match=f'such as mmdet::{named}$'):
        own_data(f'mmdet::{config}', write_data(tmp_path, masks=False))


def test_segmentation_maps_in_the_place_of_the_config_stay(tmp_path):
    write_data(tmp_path)
    (tmp_path / 'stuffthingmaps/train2017').mkdir(parents=True)
    cfg = own_data('mmdet::htc/htc_r50_fpn_1x_coco.py', tmp_path)
    assert cfg.train_dataloader.dataset.data_prefix.seg == 'stuffthingmaps/train2017/'
    assert cfg.model.roi_head.semantic_head.num_classes == 183
    assert [head.num_classes for head in cfg.model.roi_head.mask_head] == [3] * 3


@pytest.mark.parametrize(
    ('config', 'task'),
    [
        ('masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py', 'videos'),
        ('reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py', 'persons to be told apart'),
    ],
)
def test_other_tasks_are_refused(folder, config, task):
    with pytest.raises(UsageError, match=f'is for {task}'):
        own_data(f'mmdet::{config}', folder)

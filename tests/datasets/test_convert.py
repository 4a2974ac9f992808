import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from mmfish.datasets.convert import IMAGE_ENDINGS, convert_data
from mmfish.datasets.split import is_validation
from mmfish.errors import DataError, MissingDataError, UsageError

WIDTH, HEIGHT = 40, 20


def picture(path, size=(WIDTH, HEIGHT), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (90, 120, 30)).save(path, **options)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def coco(folder, split):
    content = COCO(folder / 'annotations' / f'instances_{split}.json')
    for image in content.dataset['images']:
        with Image.open(folder / split / image['file_name']):
            pass
    return content


def boxes(content):
    """(file name, class, box) of every object."""
    names = {c['id']: c['name'] for c in content.dataset['categories']}
    return {
        (content.imgs[a['image_id']]['file_name'], names[a['category_id']], tuple(a['bbox']))
        for a in content.dataset['annotations']
    }


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def xml(name, *objects):
    parts = ''.join(
        f'<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x0}</xmin>'
        f'<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>'
        for label, difficult, x0, y0, x1, y1 in objects
    )
    return f'<annotation><filename>{name}</filename>{parts}</annotation>'


@pytest.fixture
def voc(tmp_path):
    """Five images: three to train on, one to validate, one in neither list."""
    source = tmp_path / 'voc'
    labels = dict(
        a=[('dog', 0, 1, 1, 10, 20), ('cat', 1, 11, 5, 40, 14)],
        b=[('cat', 0, 31, 11, 50, 20)],  # beyond the right border
        c=[],
        d=[('dog', 0, 3, 3, 4, 4)],
        e=[('dog', 0, 1, 1, 2, 2)],
    )
    for name, objects in labels.items():
        picture(source / 'JPEGImages' / f'{name}.jpg')
        text(source / 'Annotations' / f'{name}.xml', xml(f'{name}.jpg', *objects))
    text(source / 'ImageSets/Main/train.txt', 'a\nb\nc\n')
    text(source / 'ImageSets/Main/val.txt', 'd\n')
    return source


@pytest.fixture
def yolo(tmp_path):
    """As Ultralytics has it: a box and a triangle cannot be in one data set, so boxes alone."""
    source = tmp_path / 'yolo'
    for split, name in (('train', 'a'), ('train', 'b'), ('val', 'a')):
        picture(source / 'images' / split / f'{name}.png')
    text(source / 'labels/train/a.txt', '1 0.5 0.5 0.5 0.5\n0 0.125 0.25 0.25 0.5\n')
    text(source / 'labels/val/a.txt', '0 0.25 0.5 0.1 0.1\n')
    text(source / 'data.yaml', 'path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n')
    return source


@pytest.fixture
def masks(tmp_path):
    source = tmp_path / 'masks'
    for i in range(4):
        home = source / f'id{i}'
        picture(home / 'images' / 'image.png')
        for j in range(i):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[2 : 5 + i, 10 * j : 10 * j + 6] = 255
            mask[3, 10 * j + 2] = 0  # a hole
            (home / 'masks').mkdir(exist_ok=True)
            Image.fromarray(mask).save(home / 'masks' / f'{j}.png')
        (home / 'masks').mkdir(exist_ok=True)
    return source


@pytest.fixture(autouse=True)
def needs_supervision(request):
    if {'voc', 'yolo'} & set(request.fixturenames):
        pytest.importorskip('supervision', reason='needs the extra mmfish[convert]')


def test_pascal_voc_boxes_lists_and_difficult_objects(voc, tmp_path, capsys):
    before = files_of(voc)
    convert_data(voc, tmp_path / 'new')
    assert files_of(voc) == before
    train, val = coco(tmp_path / 'new', 'train'), coco(tmp_path / 'new', 'val')
    # In VOC's files pixels count from 1, and the last one belongs to the box.
    assert boxes(train) == {
        ('a.jpg', 'dog', (0, 0, 10, 20)),
        ('a.jpg', 'cat', (10, 4, 30, 10)),
        ('b.jpg', 'cat', (30, 10, 10, 10)),
    }
    assert boxes(val) == {('d.jpg', 'dog', (2, 2, 2, 2))}
    assert len(train.imgs) == 3
    assert train.dataset['categories'] == [dict(id=1, name='cat'), dict(id=2, name='dog')]
    assert train.dataset['categories'] == val.dataset['categories']
    crowds = [train.imgs[a['image_id']]['file_name'] for a in train.anns.values() if a['iscrowd']]
    assert crowds == ['a.jpg']
    assert [a['area'] for a in train.anns.values()] == [200, 300, 100]
    assert all((i['width'], i['height']) == (WIDTH, HEIGHT) for i in train.imgs.values())
    printed = capsys.readouterr().out
    assert 'train: 3 images; objects: 2 cat, 1 dog' in printed
    assert 'left out: 1 images in no list of ImageSets/Main' in printed


def test_without_lists_the_hash_of_the_name_divides_the_images(voc, tmp_path):
    shutil.rmtree(voc / 'ImageSets')
    convert_data(voc, tmp_path / 'new', val_fraction=0.5)
    names = {i['file_name'] for i in coco(tmp_path / 'new', 'val').imgs.values()}
    assert names == {f'{s}.jpg' for s in 'abcde' if is_validation(s, 0.5)}
    assert 0 < len(names) < 5


def test_an_image_with_another_ending_than_the_xml_says_is_found(voc, tmp_path):
    text(voc / 'Annotations/a.xml', xml('C:/pictures/old.png', ('dog', 0, 1, 1, 10, 20)))
    convert_data(voc, tmp_path / 'new')
    assert ('a.jpg', 'dog', (0, 0, 10, 20)) in boxes(coco(tmp_path / 'new', 'train'))


def test_voc_labels_go_to_the_image_of_their_own_name(voc, tmp_path):
    """As after renaming all files, which leaves the old names in the XML files."""
    text(voc / 'Annotations/a.xml', xml('b.jpg', ('dog', 0, 1, 1, 10, 20)))
    text(voc / 'Annotations/b.xml', xml('a.jpg', ('cat', 0, 31, 11, 50, 20)))
    picture(voc / 'JPEGImages/c[1].jpg')
    text(voc / 'Annotations/c[1].xml', xml('c.jpg', ('cat', 0, 1, 1, 8, 8)))
    text(voc / 'JPEGImages/a.json', '{}')
    text(voc / 'ImageSets/Main/train.txt', 'a\nb\nc\nc[1]\n')
    convert_data(voc, tmp_path / 'new')
    assert boxes(coco(tmp_path / 'new', 'train')) == {
        ('a.jpg', 'dog', (0, 0, 10, 20)),
        ('b.jpg', 'cat', (30, 10, 10, 10)),
        ('c[1].jpg', 'cat', (0, 0, 8, 8)),
    }


def test_without_an_image_of_the_xml_files_name_its_filename_counts(voc, tmp_path):
    shutil.move(voc / 'JPEGImages/a.jpg', voc / 'JPEGImages/first.jpg')
    text(voc / 'Annotations/a.xml', xml('first.jpg', ('dog', 0, 1, 1, 10, 20)))
    convert_data(voc, tmp_path / 'new')
    assert ('first.jpg', 'dog', (0, 0, 10, 20)) in boxes(coco(tmp_path / 'new', 'train'))


@pytest.mark.parametrize('others', ['train', 'trainval'])
def test_images_of_a_test_list_stay_test_images(voc, tmp_path, others):
    shutil.rmtree(voc / 'ImageSets')
    text(voc / f'ImageSets/Main/{others}.txt', 'a\nb\nc\n')
    text(voc / 'ImageSets/Main/test.txt', 'd\n')
    convert_data(voc, tmp_path / 'new', val_fraction=0.5)
    names = {
        split: {i['file_name'] for i in coco(tmp_path / 'new', split).imgs.values()}
        for split in ('train', 'val', 'test')
    }
    assert names['test'] == {'d.jpg'}
    assert names['val'] == {f'{s}.jpg' for s in 'abce' if is_validation(s, 0.5)}
    assert names['train'] | names['val'] == {f'{s}.jpg' for s in 'abce'}


def test_yolo_boxes_and_images_without_labels(yolo, tmp_path):
    before = files_of(yolo)
    convert_data(yolo, tmp_path / 'new')
    assert files_of(yolo) == before
    train = coco(tmp_path / 'new', 'train')
    assert boxes(train) == {
        ('a.png', 'dog', (10, 5, 20, 10)),
        ('a.png', 'cat', (0, 0, 10, 10)),
    }
    assert {i['file_name'] for i in train.imgs.values()} == {'a.png', 'b.png'}
    assert boxes(coco(tmp_path / 'new', 'val')) == {('a.png', 'cat', (8, 9, 4, 2))}
    assert not any('segmentation' in a for a in train.anns.values())


def test_yolo_polygons_become_masks(yolo, tmp_path):
    for file in (yolo / 'labels').rglob('*.txt'):
        text(file, '1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n')
    convert_data(yolo, tmp_path / 'new')
    train = coco(tmp_path / 'new', 'train')
    (annotation,) = train.anns.values()
    assert annotation['bbox'] == [10, 5, 20, 10]
    mask = train.annToMask(annotation)
    assert mask.shape == (HEIGHT, WIDTH)
    # The outline's own pixels count too, as OpenCV draws polygons.
    assert mask.sum() == annotation['area'] == 21 * 11
    assert mask[5:16, 10:31].all()


def test_boxes_among_polygons_leave_boxes_alone(yolo, tmp_path, capsys):
    text(yolo / 'labels/val/a.txt', '1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n')
    convert_data(yolo, tmp_path / 'new')
    val = coco(tmp_path / 'new', 'val')
    assert boxes(val) == {('a.png', 'dog', (10, 5, 20, 10))}
    assert 'segmentation' not in val.anns[1]
    assert '1 masks, because other objects have boxes only' in capsys.readouterr().out


@pytest.mark.parametrize('up', ['', '../'])
def test_yolo_as_roboflow_writes_it(yolo, tmp_path, up):
    for split, new in (('train', 'train'), ('val', 'valid')):
        for kind in ('images', 'labels'):
            shutil.move(yolo / kind / split, yolo / new / kind)
    text(
        yolo / 'data.yaml',
        f'train: {up}train/images\nval: {up}valid/images\nnc: 2\nnames: {{0: cat, 1: dog}}\n',
    )
    convert_data(yolo, tmp_path / 'new')
    assert len(boxes(coco(tmp_path / 'new', 'train'))) == 2
    assert boxes(coco(tmp_path / 'new', 'val')) == {('a.png', 'cat', (8, 9, 4, 2))}


def test_images_of_the_same_name_from_several_folders_are_kept(yolo, tmp_path):
    text(yolo / 'data.yaml', 'train: [images/train, images/val]\nnames: [cat, dog]\n')
    convert_data(yolo, tmp_path / 'new', val_fraction=0)
    train = coco(tmp_path / 'new', 'train')
    assert len({i['file_name'] for i in train.imgs.values()}) == 3
    assert len(boxes(train)) == 3


def test_a_new_name_is_not_that_of_another_image(yolo, tmp_path):
    """a.png of the second folder must not become the a_3.png of the first, nor be written into."""
    for i, name in enumerate(('1/a', '1/a_3', '2/a', '2/A_3')):
        picture(yolo / 'images' / f'{name}.png', (WIDTH + i, HEIGHT))
    text(yolo / 'data.yaml', 'train: [images/1, images/2]\nnames: [cat, dog]\n')
    before = files_of(yolo)
    convert_data(yolo, tmp_path / 'new', val_fraction=0)
    assert files_of(yolo) == before
    images = coco(tmp_path / 'new', 'train').imgs.values()
    # Some disks take no difference between small and capital letters.
    assert len({i['file_name'].lower() for i in images}) == 4
    for image in images:
        with Image.open(tmp_path / 'new/train' / image['file_name']) as file:
            assert file.size == (image['width'], image['height'])
    assert {i['width'] for i in images} == {WIDTH + i for i in range(4)}


def test_a_file_in_the_way_is_not_written_into(masks, tmp_path, monkeypatch):
    """As on a disk that takes two names for one."""
    before = files_of(masks)
    link = os.link

    def link_twice(image, target):
        link(image, target)
        link(image, target)

    monkeypatch.setattr(os, 'link', link_twice)
    with pytest.raises(UsageError, match=r'new cannot be written: .*File exists'):
        convert_data(masks, tmp_path / 'new')
    assert files_of(masks) == before


def test_yolo_labels_beside_images_in_a_folder_below_one_called_images(yolo, tmp_path):
    """The `images` may be above the source, or within it without a `labels`."""
    source = tmp_path / 'images/source'
    for home in (source, source / 'images'):
        picture(home / f'of_{home.name}.png')
        text(home / f'of_{home.name}.txt', '1 0.5 0.5 0.5 0.5\n')
    # Of another data set: the source has no part in it.
    text(tmp_path / 'labels/source/of_source.txt', '0 0.5 0.5 0.5 0.5\n')
    text(source / 'data.yaml', 'train: .\nnames: [cat, dog]\n')
    convert_data(source, tmp_path / 'new', val_fraction=0)
    assert boxes(coco(tmp_path / 'new', 'train')) == {
        ('of_source.png', 'dog', (10, 5, 20, 10)),
        ('of_images.png', 'dog', (10, 5, 20, 10)),
    }


def test_yolo_images_outside_of_the_source_have_their_labels(yolo, tmp_path):
    (tmp_path / 'here').mkdir()
    shutil.move(yolo / 'data.yaml', tmp_path / 'here/data.yaml')
    text(
        tmp_path / 'here/data.yaml',
        f'path: {yolo}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n',
    )
    convert_data(tmp_path / 'here', tmp_path / 'new')
    assert len(boxes(coco(tmp_path / 'new', 'train'))) == 2


@pytest.mark.parametrize('ending', sorted(IMAGE_ENDINGS))
def test_every_ending_of_an_image_is_read(voc, yolo, tmp_path, ending):
    for source, image in ((voc, 'JPEGImages/a.jpg'), (yolo, 'images/train/a.png')):
        (source / image).unlink()
        picture((source / image).with_suffix(ending.upper()))
        convert_data(source, tmp_path / f'new_{source.name}')
        train = boxes(coco(tmp_path / f'new_{source.name}', 'train'))
        assert len([name for name, _, _ in train if name == f'a{ending.upper()}']) == 2


def test_a_list_of_images_is_read_as_ultralytics_does(yolo, tmp_path):
    text(yolo / 'list.txt', './images/train/a.png\nimages/train/b.png\n')
    text(yolo / 'data.yaml', 'train: list.txt\nval: images/val\nnames: [cat, dog]\n')
    convert_data(yolo, tmp_path / 'new')
    assert len(coco(tmp_path / 'new', 'train').imgs) == 2


def test_an_image_turned_by_its_exif_has_the_size_that_mmdetection_loads(yolo, tmp_path):
    from mmcv.image import imread

    exif = Image.Exif()
    exif[0x0112] = 6
    (yolo / 'images/train/a.png').unlink()
    picture(yolo / 'images/train/a.jpg', exif=exif)
    convert_data(yolo, tmp_path / 'new')
    train = coco(tmp_path / 'new', 'train')
    (image,) = (i for i in train.imgs.values() if i['file_name'] == 'a.jpg')
    assert imread(tmp_path / 'new/train/a.jpg').shape[:2] == (image['height'], image['width'])
    assert (image['width'], image['height']) == (HEIGHT, WIDTH)
    assert ('a.jpg', 'dog', (5, 10, 10, 20)) in boxes(train)


def test_mask_folders(masks, tmp_path, capsys):
    Image.new('L', (WIDTH, HEIGHT)).save(masks / 'id3/masks/empty.png')
    convert_data(masks, tmp_path / 'new', val_fraction=0)
    content = coco(tmp_path / 'new', 'train')
    assert [i['file_name'] for i in content.imgs.values()] == [f'id{i}.png' for i in range(4)]
    assert len(content.anns) == 0 + 1 + 2 + 3
    for annotation in content.anns.values():
        i = int(content.imgs[annotation['image_id']]['file_name'][2])
        assert annotation['area'] == 6 * (3 + i) - 1
        assert annotation['bbox'][1:] == [2, 6, 3 + i]
        assert content.annToMask(annotation)[3, int(annotation['bbox'][0]) + 2] == 0
    printed = capsys.readouterr().out
    assert 'train: 4 images; objects: 6 object' in printed
    assert 'left out: 1 empty masks' in printed


def test_mask_folders_in_train_and_val_are_divided_so(masks, tmp_path):
    for i in range(4):
        shutil.move(masks / f'id{i}', masks / ('val' if i == 3 else 'train') / f'id{i}')
    convert_data(masks, tmp_path / 'new', val_fraction=0)
    assert [i['file_name'] for i in coco(tmp_path / 'new', 'val').imgs.values()] == ['id3.png']


def test_images_are_hard_links_and_copies_where_these_cannot_be(masks, tmp_path, monkeypatch):
    convert_data(masks, tmp_path / 'links', val_fraction=0)
    original = masks / 'id1/images/image.png'
    assert os.path.samefile(original, tmp_path / 'links/train/id1.png')
    monkeypatch.setattr(os, 'link', lambda *paths: os.stat('/no such file'))
    convert_data(masks, tmp_path / 'copies', val_fraction=0)
    copy = tmp_path / 'copies/train/id1.png'
    assert not os.path.samefile(original, copy)
    assert copy.read_bytes() == original.read_bytes()


def no_names(source):
    text(source / 'data.yaml', 'train: images/train\nval: images/val\n')


def gap_in_names(source):
    text(source / 'data.yaml', 'train: images/train\nval: images/val\nnames: {0: cat, 2: dog}\n')


def three_numbers(source):
    text(source / 'labels/val/a.txt', '0 0.5 0.5\n')


def words(source):
    text(source / 'labels/val/a.txt', 'cat 0.5 0.5 0.1 0.1\n')


def class_out_of_range(source):
    text(source / 'labels/val/a.txt', '2 0.5 0.5 0.1 0.1\n')


def no_folder(source):
    text(source / 'data.yaml', 'train: images/train\nval: images/valid\nnames: [cat, dog]\n')


def damaged(source):
    file = next(source.rglob('a.*[gG]'))
    file.write_bytes(file.read_bytes()[:60])


def broken_xml(source):
    text(source / 'Annotations/b.xml', '<annotation><object>')


def no_box(source):
    text(source / 'Annotations/b.xml', '<annotation><object><name>dog</name></object></annotation>')


def no_image(source):
    (source / 'JPEGImages/b.jpg').unlink()


def one_image_twice(source):
    text(source / 'Annotations/d.xml', xml('a.jpg'))
    (source / 'JPEGImages/d.jpg').unlink()


def gif_in_voc(source):
    picture(source / 'JPEGImages/b.gif')
    (source / 'JPEGImages/b.jpg').unlink()
    text(source / 'Annotations/b.xml', xml('b.gif', ('cat', 0, 1, 1, 2, 2)))


def gif_in_list(source):
    picture(source / 'images/train/c.gif')
    text(source / 'labels/train/c.txt', '0 0.5 0.5 0.1 0.1\n')
    text(source / 'list.txt', './images/train/c.gif\n')
    text(source / 'data.yaml', 'train: list.txt\nval: images/val\nnames: [cat, dog]\n')


def chinese_xml(source):
    content = '<?xml version="1.0" encoding="GBK"?>' + xml('b.jpg', ('\u732b', 0, 1, 1, 2, 2))
    (source / 'Annotations/b.xml').write_bytes(content.encode('gbk'))


def unknown_encoding(source):
    text(source / 'Annotations/b.xml', '<?xml version="1.0" encoding="klingon"?>' + xml('b.jpg'))


def folder_as_xml(source):
    (source / 'Annotations/b.xml').unlink()
    (source / 'Annotations/b.xml').mkdir()


def long_name_in_xml(source):
    (source / 'JPEGImages/b.jpg').unlink()
    text(source / 'Annotations/b.xml', xml('b' * 300 + '.jpg'))


def no_object(source):
    for file in (source / 'Annotations').iterdir():
        text(file, xml(f'{file.stem}.jpg'))


def number_as_path(source):
    text(source / 'data.yaml', 'path: 3\ntrain: images/train\nnames: [cat, dog]\n')


def date_that_is_none(source):
    text(source / 'data.yaml', 'date: 2020-13-45\ntrain: images/train\nnames: [cat, dog]\n')


def folder_as_yaml(source):
    (source / 'data.yaml').unlink()
    (source / 'data.yaml').mkdir()


def long_name_of_a_part(source):
    text(source / 'data.yaml', f'train: {"t" * 300}\nnames: [cat, dog]\n')


def long_name_in_list(source):
    text(source / 'list.txt', f'./images/{"a" * 300}.png\n')
    text(source / 'data.yaml', 'train: list.txt\nnames: [cat, dog]\n')


def one_name_twice(source):
    text(source / 'data.yaml', "train: images/train\nnames: [cat, 1, dog, '1', cat]\n")


def other_size(source):
    Image.new('L', (WIDTH, HEIGHT + 1), 255).save(source / 'id2/masks/0.png')


def two_images(source):
    picture(source / 'id2/images/second.png')


@pytest.mark.parametrize(
    ('layout', 'spoil', 'error', 'message'),
    [
        ('yolo', no_names, DataError, 'data.yaml has no usable names: expected is a list'),
        ('yolo', gap_in_names, DataError, 'data.yaml has no usable names'),
        ('yolo', three_numbers, DataError, r"val/a.txt has the line '0 0.5 0.5': expected"),
        ('yolo', words, DataError, 'val/a.txt has the line'),
        (
            'yolo',
            class_out_of_range,
            DataError,
            'val/a.txt has an object of class 2, and .* 0 to 1',
        ),
        ('yolo', no_folder, MissingDataError, 'names images/valid, and there is no'),
        ('yolo', damaged, DataError, 'a.png is a damaged image, or none'),
        ('yolo', gif_in_list, DataError, "c.gif ends in '.gif': expected is an image in .bmp, "),
        ('yolo', number_as_path, DataError, 'data.yaml has the path 3: expected is a folder'),
        ('yolo', date_that_is_none, DataError, 'data.yaml is no YAML: month must be in 1..12'),
        ('yolo', folder_as_yaml, DataError, 'yolo cannot be read: .*data.yaml'),
        ('yolo', long_name_of_a_part, DataError, 'yolo cannot be read: .*name too long'),
        ('yolo', long_name_in_list, DataError, 'yolo cannot be read: .*name too long'),
        ('yolo', one_name_twice, DataError, 'data.yaml has the names cat, 1 more than once'),
        ('voc', broken_xml, DataError, 'b.xml cannot be read as XML'),
        ('voc', chinese_xml, DataError, r'b.xml cannot be read as XML \(multi-byte .*UTF-8'),
        ('voc', unknown_encoding, DataError, r'b.xml cannot be read as XML \(unknown encoding'),
        ('voc', folder_as_xml, DataError, 'voc cannot be read: .*b.xml'),
        ('voc', long_name_in_xml, DataError, 'voc cannot be read: .*name too long'),
        ('voc', no_object, DataError, 'voc has no objects in its 4 images'),
        ('voc', one_image_twice, DataError, 'a.xml and .*d.xml are both of the image .*a.jpg'),
        ('voc', gif_in_voc, DataError, "b.gif ends in '.gif': expected is an image in .bmp, "),
        ('voc', no_box, DataError, 'b.xml cannot be read: Missing bndbox'),
        ('voc', no_image, MissingDataError, 'b.xml names the image b.jpg, which is not in'),
        ('voc', damaged, DataError, 'a.jpg is a damaged image, or none'),
        ('masks', other_size, DataError, '0.png is a mask of 40x21 pixels, and its image'),
        ('masks', two_images, DataError, 'id2/images has 2 images: expected is one'),
    ],
)
def test_bad_data_is_one_sentence_and_leaves_nothing(
    request, tmp_path, layout, spoil, error, message
):
    source = request.getfixturevalue(layout)
    pytest.importorskip('supervision') if layout != 'masks' else None
    spoil(source)
    with pytest.raises(error, match=message) as caught:
        convert_data(source, tmp_path / 'new')
    assert '\n' not in str(caught.value)
    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.parametrize(
    ('layout', 'file'),
    [('voc', 'Annotations/a.xml'), ('yolo', 'data.yaml'), ('yolo', 'labels/train/a.txt')],
)
def test_a_file_that_may_not_be_read_is_named(request, tmp_path, layout, file):
    source = request.getfixturevalue(layout)
    pytest.importorskip('supervision')
    (source / file).chmod(0)
    if os.access(source / file, os.R_OK):
        pytest.skip('this user may read all files')
    with pytest.raises(DataError, match=f'{layout} cannot be read: .*Permission denied: .*{file}'):
        convert_data(source, tmp_path / 'new')
    assert os.listdir(tmp_path) == [source.name]


def test_a_source_that_is_missing_empty_or_unknown(tmp_path):
    with pytest.raises(MissingDataError, match=r'there is no folder .*nowhere'):
        convert_data(tmp_path / 'nowhere', tmp_path / 'new')
    (tmp_path / 'source').mkdir()
    with pytest.raises(UsageError, match=r'source is empty: known are Pascal VOC .* YOLO .*masks'):
        convert_data(tmp_path / 'source', tmp_path / 'new')
    picture(tmp_path / 'source/image.png')
    with pytest.raises(UsageError, match='source has no known layout: known are'):
        convert_data(tmp_path / 'source', tmp_path / 'new')
    assert os.listdir(tmp_path) == ['source']


def test_nothing_is_written_over_or_into_the_source(masks, tmp_path):
    text(tmp_path / 'full/precious.txt', 'keep me')
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match='full is there already'):
        convert_data(masks, tmp_path / 'full')
    with pytest.raises(UsageError, match='is within'):
        convert_data(masks, masks / 'new')
    with pytest.raises(UsageError, match='val_fraction must be from 0 to 1, got 20'):
        convert_data(masks, tmp_path / 'new', val_fraction=20)
    assert files_of(tmp_path) == before


def test_a_disk_that_is_full_leaves_nothing(masks, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(UsageError, match=r'new cannot be written: .*No space left'):
        convert_data(masks, tmp_path / 'new')
    assert os.listdir(tmp_path) == ['masks']


def test_an_empty_folder_may_be_the_destination(masks, tmp_path):
    (tmp_path / 'new').mkdir()
    convert_data(masks, tmp_path / 'new')
    assert (tmp_path / 'new/annotations').is_dir()


def test_without_supervision_the_extra_is_named(voc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UsageError, match=r'pip install "mmfish\[convert\]"'):
        convert_data(voc, tmp_path / 'new')


def test_masks_are_readable_by_pycocotools_as_they_are_written(masks, tmp_path):
    convert_data(masks, tmp_path / 'new', val_fraction=0)
    content = json.loads((tmp_path / 'new/annotations/instances_train.json').read_text())
    decoded = [run_lengths.decode(a['segmentation']) for a in content['annotations']]
    assert {mask.shape for mask in decoded} == {(HEIGHT, WIDTH)}

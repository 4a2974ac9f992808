"""Which files are meant by what a user gives, and which of them can be read."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mmfish.errors import DataError
from mmfish.inference.inputs import find_files, read_image, read_video

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ('b/x.png', 'a/x.png', 'a/with spaces, größe 细胞.JPG', 'clip.mp4', 'notes.txt'):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / 'photos' / '.thumbnails').mkdir()
    (tmp_path / 'photos' / '.thumbnails' / 'x.png').touch()
    return tmp_path / 'photos'


def names(inputs):
    return [file.name for file in find_files(inputs)[0]]


def test_folders_are_searched_with_all_below_them(folder):
    files, others, folders = find_files([folder])
    expected = ['a/with spaces, größe 细胞.JPG', 'a/x.png', 'b/x.png', 'clip.mp4']
    assert [file.name for file in files] == expected
    assert [file.is_video for file in files] == [False, False, False, True]
    assert others == ['notes.txt']
    assert folders == [folder]


def test_links_to_folders_are_followed_and_circles_are_not(folder, tmp_path):
    links = tmp_path / 'links'
    links.mkdir()
    for name in ('a', 'b'):
        (links / name).symlink_to(folder / name)
    (links / 'a' / 'again').symlink_to(links)
    (links / 'gone.png').symlink_to(folder / 'gone.png')
    (links / '.hidden').symlink_to(folder)
    files, _, folders = find_files([links])
    expected = ['a/with spaces, größe 细胞.JPG', 'a/x.png', 'b/x.png']
    assert [file.name for file in files] == expected
    assert folders == [links, links / 'a', links / 'b']


def test_names_are_distinct_and_each_file_comes_once(folder):
    assert names([folder / 'a' / 'x.png']) == ['x.png']
    assert names([folder / 'b', folder / 'a' / 'x.png']) == ['b/x.png', 'a/x.png']
    assert names([folder / 'b' / 'x.png', folder / 'b']) == ['x.png']


def test_patterns_match_files_and_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert names(['?/x.*']) == ['a/x.png', 'b/x.png']
    assert names(['**/*.JPG']) == ['with spaces, größe 细胞.JPG']
    # A file may have such a name itself.
    (folder / '[1].png').touch()
    assert names(['[1].png']) == ['[1].png']


def test_what_is_named_is_taken_for_an_image(folder):
    assert names([folder / 'notes.txt']) == ['notes.txt']


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('gone.jpg', r'there is no .*gone\.jpg'),
        ('gone/*.jpg', r'no file matches .*gone/\*\.jpg'),
        ('empty', 'there is no image in .*empty'),
    ],
)
def test_an_input_without_images_is_named(given, message, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match=message):
        find_files([tmp_path / given])


@pytest.mark.parametrize('kind', ['RGB', 'RGBA', 'P', 'L', '1', 'CMYK', 'I;16', 'GIF'])
def test_images_of_every_kind_become_bgr(kind, tmp_path):
    image = Image.fromarray(PIXELS)
    path = tmp_path / ('x.jpg' if kind == 'CMYK' else 'x.gif' if kind == 'GIF' else 'x.png')
    if kind == 'GIF':
        image.save(path, save_all=True, append_images=[image.rotate(180)])
    elif kind == 'I;16':
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(path)
    else:
        image.convert(kind).save(path)
    found = read_image(path)
    assert (found.shape, found.dtype) == (PIXELS.shape, np.uint8)
    if kind in ('RGB', 'RGBA'):
        np.testing.assert_array_equal(found, PIXELS[..., ::-1])
    if kind == 'I;16':
        np.testing.assert_array_equal(found[..., 2], PIXELS[..., 0])


def test_images_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / 'x.jpg', exif=exif)
    assert read_image(tmp_path / 'x.jpg').shape == (32, 24, 3)
    turned = read_image(tmp_path / 'x.jpg', decode=lambda data: None)  # so that Pillow does it
    assert turned.shape == (32, 24, 3)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('truncated.jpg', '(?i)truncated'),
        ('truncated.png', 'truncated'),
        ('empty.png', 'empty'),
        ('text.jpg', 'no image'),
        ('float.tif', 'F numbers'),
        ('gone.png', 'No such file'),
    ],
)
def test_what_is_wrong_with_an_image_is_said(name, message, tmp_path):
    path = tmp_path / name
    if name.startswith('truncated'):
        Image.fromarray(PIXELS).save(path)
        os.truncate(path, path.stat().st_size // 2)
    elif name == 'empty.png':
        path.touch()
    elif name == 'text.jpg':
        path.write_text('hello')
    elif name == 'float.tif':
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    with pytest.raises(DataError, match=message):
        read_image(path)


def test_videos_are_read_frame_by_frame(tmp_path):
    path = tmp_path / 'clip.avi'
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 24))
    for number in range(3):
        video.write(np.full_like(PIXELS, 80 * number))
    video.release()
    frames, rate, count = read_video(path)
    assert [round(frame.mean() / 80) for frame in frames] == [0, 1, 2]
    assert (rate, count) == (10, 3)
    path.write_text('no video')
    with pytest.raises(DataError, match='no video'):
        read_video(path)


def test_one_input_may_be_given_by_itself(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    for given in (tmp_path, str(tmp_path), tmp_path / 'a.png'):
        assert [file.path.name for file in find_files(given)[0]] == ['a.png']

"""From files to pictures: whose files are never written to, and what pictures look like."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from mmfish.errors import UsageError
from mmfish.inference.coco import Predictions
from mmfish.inference.files import check_inputs, predict_files

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def nothing(images):
    return [Predictions(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)) for _ in images]


def predict(inputs, out, **options):
    files, others = check_inputs(inputs, out, 0.3, 1)
    return predict_files(nothing, files, out, ('cat',), others=others, **options)


def write_clip(path):
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (32, 24))
    video.write(PIXELS)
    video.release()


@pytest.fixture
def originals(tmp_path):
    folder = tmp_path / 'real'
    folder.mkdir()
    Image.fromarray(PIXELS).save(folder / 'x.png')
    write_clip(folder / 'clip.mp4')
    return folder


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_folder_of_a_linked_input_is_not_written_to(originals, tmp_path):
    before = contents(originals)
    photos = tmp_path / 'photos'
    photos.mkdir()
    (photos / 'x.png').symlink_to(originals / 'x.png')
    with pytest.raises(UsageError, match='photos holds inputs'):
        predict([photos / 'x.png'], photos)
    assert contents(originals) == before


def test_a_folder_that_a_folder_of_inputs_links_to_is_not_written_to(originals, tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    (photos / 'link').symlink_to(originals)
    with pytest.raises(UsageError, match='lies in a folder of inputs'):
        predict([photos], originals / 'out')


@pytest.mark.parametrize('link', [os.link, os.symlink])
def test_links_to_the_inputs_are_replaced_and_not_followed(link, originals, tmp_path):
    before = contents(originals)
    out = tmp_path / 'out'
    out.mkdir()
    for name in before:
        link(originals / name, out / name)
    assert predict([originals], out).images == 2
    assert contents(originals) == before
    assert cv2.imread(str(out / 'x.png')).shape == (480, 640, 3)
    assert cv2.VideoCapture(str(out / 'clip.mp4')).read()[1].shape == (480, 640, 3)


def test_what_is_too_long_for_a_jpeg_becomes_a_png(tmp_path):
    source = tmp_path / 'in' / 'long.jpg'
    source.parent.mkdir()
    Image.fromarray(np.zeros((2, 65501), np.uint8)).save(source, format='PNG')
    predict([source], tmp_path / 'out')
    names = sorted(file.name for file in (tmp_path / 'out').iterdir())
    assert names == ['long.jpg.png', 'predictions.json']
    assert cv2.imread(str(tmp_path / 'out' / 'long.jpg.png')).shape == (2, 65501, 3)


def test_where_nothing_can_be_written_is_one_sentence(originals, tmp_path):
    (tmp_path / 'out' / 'x.png' / 'folder').mkdir(parents=True)
    with pytest.raises(UsageError, match=r'x\.png cannot be written'):
        predict([originals / 'x.png'], tmp_path / 'out')
    (tmp_path / 'out' / 'clip.mp4').mkdir()
    with pytest.raises(UsageError, match=r'clip\.mp4 cannot be written'):
        predict([originals / 'clip.mp4'], tmp_path / 'out')

"""Pictures of predictions can be read, whatever the size of the image."""

import numpy as np
import pytest

from mmfish.inference.coco import Predictions
from mmfish.inference.drawing import draw_predictions

RED, BLUE = (255, 0, 0), (0, 0, 255)


def found(*boxes, masks=None):
    count = len(boxes)
    return Predictions(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(1, 0.5, count),
        np.arange(count) % 2,
        masks,
    )


@pytest.mark.parametrize(('side', 'enlarged'), [(1, 640), (64, 10), (300, 2), (1000, 1), (4000, 1)])
def test_lines_and_letters_go_with_the_image(side, enlarged):
    image = np.full((max(1, side // 2), side, 3), 255, np.uint8)
    box = side * 0.25, side * 0.2, side * 0.5, side * 0.4
    picture = draw_predictions(image, found(box), ('cat', 'dog'), [RED, BLUE])
    assert picture.shape == (image.shape[0] * enlarged, side * enlarged, 3)
    assert image.min() == 255
    changed = (picture != 255).any(axis=2)
    x, y = (round(value * enlarged) for value in (box[2], (box[1] + box[3]) / 2))
    line = changed[y, x - 40 * side * enlarged // 4000 : x + 40 * side * enlarged // 4000].sum()
    assert line == pytest.approx(side * enlarged / 500, abs=1)
    # The plate of the name: letters of at least 12 pixels, or a sixtieth of the picture.
    plate = changed[:, round(box[0] * enlarged) + 2].sum()
    assert plate > max(12, side * enlarged / 60)


def test_masks_are_tinted_and_outlined_and_the_rest_stays():
    image = np.full((700, 700, 3), 100, np.uint8)
    mask = np.zeros((1, 700, 700), bool)
    mask[0, 200:400, 300:500] = True
    picture = draw_predictions(image, found((300, 200, 500, 400), masks=mask), 'ab', [RED, BLUE])
    assert picture[300, 400].tolist() == [60, 60, 162]  # 0.6 of the image and 0.4 of red, BGR
    assert picture[300, 300].tolist() == [0, 0, 255]
    assert picture[600, 600].tolist() == [100, 100, 100]


def test_objects_of_a_single_class_differ_in_colour():
    image = np.zeros((700, 700, 3), np.uint8)
    boxes = found((100, 100, 200, 200), (400, 400, 600, 600))
    boxes.labels[:] = 0
    one = draw_predictions(image, boxes, ['nucleus'], [RED])
    assert (one[150, 100] != one[500, 400]).any()
    many = draw_predictions(image, boxes, ['nucleus', 'cell'], [RED, BLUE])
    assert many[150, 100].tolist() == many[500, 400].tolist() == [0, 0, 255]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [(), (1,), (3,), (4,)])
def test_whatever_a_decoder_leaves_unchanged_is_drawn(channels, dtype):
    image = np.full((700, 700, *channels), np.iinfo(dtype).max // 5, dtype)
    image[:10], image[-10:] = 0, np.iinfo(dtype).max
    mask = np.zeros((1, 700, 700), bool)
    mask[0, 200:400, 300:500] = True
    picture = draw_predictions(image, found((300, 200, 500, 400), masks=mask), 'ab', [RED, BLUE])
    assert (picture.shape, picture.dtype) == ((700, 700, 3), np.uint8)
    assert picture[300, 400].tolist() == [30, 30, 132]  # 0.6 of the image and 0.4 of red, BGR
    assert picture[600, 600].tolist() == [51, 51, 51]


def test_a_name_covers_neither_another_one_nor_an_object():
    image = np.zeros((700, 700, 3), np.uint8)
    crowd = [(x, y, x + 8, y + 8) for x in range(100, 600, 16) for y in range(100, 600, 16)]
    picture = draw_predictions(image, found(*crowd), ['nucleus'])
    # All middles are as they were, so that no object is hidden.
    assert not any(picture[y1 + 4, x1 + 4].any() for x1, y1, _, _ in crowd)


@pytest.mark.parametrize('shape', [(20, 20), (20, 20, 1), (1, 2000, 3), (2000, 1, 3)])
def test_grey_and_narrow_images_are_drawn(shape):
    image = np.zeros(shape, np.uint8)
    box = 0, 0, shape[1], shape[0]
    assert draw_predictions(image, found(box), ['cat']).any()
    assert not draw_predictions(image, found(), ['cat']).any()

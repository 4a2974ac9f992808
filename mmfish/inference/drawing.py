"""Pictures of predictions: boxes, masks, names and scores, in sizes that suit the image."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmfish.inference.coco import Predictions, class_name

# The longer side of a picture has at least about so many pixels: names on smaller ones cannot be
# read.
LEAST_SIDE = 640
MASK_OPACITY = 0.4
Colour = tuple[int, int, int]
Place = tuple[int, int, int, int]  # x1, y1, x2, y2


def draw_predictions(
    image: np.ndarray,
    found: Predictions,
    classes: Sequence[str],
    palette: Sequence[Colour] | None = None,
) -> np.ndarray:
    """Draw predictions on an image.

    The widths of lines and the size of letters go with the image. A name that would cover another
    one, or the middle of another object, is left out; those of higher scores come first.

    Args:
        image: (H, W, 3), BGR; (H, W) or (H, W, 1), grey; or (H, W, 4), of which the fourth channel
            is left out. Other numbers than uint8 are drawn from black, the least, to white. Is not
            changed.
        found: best first.
        classes: names of the classes.
        palette: an RGB colour for each class. Defaults to colours that differ well. If there is
            only one class, each object gets another colour, so that neighbours can be told apart.

    Returns:
        (H * k, W * k, 3), BGR, uint8. k is 1, or for an image of less than 640 pixels a whole
        number that enlarges it.
    """
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    image = image[..., :3]
    if image.dtype != np.uint8:
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    enlarged = max(1, round(LEAST_SIDE / max(image.shape[:2])))
    picture = cv2.resize(image, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_NEAREST)
    height, width = picture.shape[:2]
    line = max(1, round(max(height, width) / 500))
    font = ImageFont.load_default(max(12, round(max(height, width) / 60)))
    one_class = len(classes) == 1
    colours = [
        _colour(i if one_class else int(label), None if one_class else palette)[::-1]
        for i, label in enumerate(found.labels)
    ]
    # The best come last, on top of the others.
    order = range(len(found.boxes) - 1, -1, -1)
    for i in order if found.masks is not None else ():
        _draw_mask(picture, found.masks[i], enlarged, colours[i], line)
    for i in order:
        x1, y1, x2, y2 = (round(float(v) * enlarged) for v in found.boxes[i])
        # The line lies within the picture, where the box ends with it.
        corner = min(x2, width) - 1, min(y2, height) - 1
        cv2.rectangle(picture, (max(x1, 0), max(y1, 0)), corner, colours[i], line)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) * (enlarged / 2)
    taken: list[Place] = [(int(x), int(y), int(x) + 1, int(y) + 1) for x, y in centres]
    for i, label in enumerate(found.labels):
        text = f'{class_name(classes, int(label))} {found.scores[i]:.2f}'
        _draw_label(picture, text, found.boxes[i] * enlarged, colours[i], font, taken)
    return picture


def _colour(number: int, palette: Sequence[Colour] | None) -> Colour:
    if palette is not None and number < len(palette):
        red, green, blue = palette[number]
        return int(red), int(green), int(blue)
    # Steps of the golden ratio keep hues apart, however many there are.
    hue = (0.02 + number * 0.618034) % 1
    value = (1.0, 0.75)[number // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw_mask(
    picture: np.ndarray, mask: np.ndarray, enlarged: int, colour: Colour, line: int
) -> None:
    """Tint the pixels of a mask, and draw its outline."""
    # Work on the part that it fills: large images have many small objects.
    left, top, w, h = cv2.boundingRect(mask.astype(np.uint8))
    if not w:
        return
    part = mask[top : top + h, left : left + w]
    part = np.repeat(np.repeat(part, enlarged, axis=0), enlarged, axis=1)
    top, left = top * enlarged, left * enlarged
    area = picture[top : top + part.shape[0], left : left + part.shape[1]]
    area[part] = area[part] * (1 - MASK_OPACITY) + np.multiply(colour, MASK_OPACITY)
    outlines, _ = cv2.findContours(
        part.astype(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(left, top),
    )
    cv2.drawContours(picture, outlines, -1, colour, line)


def _draw_label(
    picture: np.ndarray,
    text: str,
    box: np.ndarray,
    colour: Colour,
    font: ImageFont.FreeTypeFont,
    taken: list[Place],
) -> None:
    """Write on a plate of the box's colour, where that covers nothing else.

    Args:
        picture: changed in place.
        text: to be written.
        box: x1, y1, x2, y2 in the picture.
        colour: BGR.
        font: of the text.
        taken: what may not be covered; the place of this label is added.
    """
    height, width = picture.shape[:2]
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    w, h = min(round(right - left) + 6, width), min(ascent + descent, height)
    x1, y1, _, y2 = (round(float(v)) for v in box)
    x = min(max(x1, 0), width - w)
    # Above the box, else below it, else at its top.
    for y in (y1 - h, y2, y1):
        place = x, y, x + w, y + h
        if y < 0 or y + h > height or any(_overlap(place, other) for other in taken):
            continue
        taken.append(place)
        blue, green, red = colour
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
        plate = Image.new('RGB', (w, h), (red, green, blue))
        ImageDraw.Draw(plate).text((3 - left, 0), text, 'black' if bright else 'white', font)
        picture[y : y + h, x : x + w] = np.asarray(plate)[..., ::-1]
        return


def _overlap(a: Place, b: Place) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

"""The shapes data set: instance segmentation in COCO's layout, drawn instead of downloaded."""

import colorsys
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from tqdm import tqdm

from mmfish.errors import UsageError

CLASSES = ('circle', 'square', 'triangle')
PALETTE = [
    (230, 57, 70),
    (69, 123, 157),
    (42, 157, 80),
]

# Raised whenever the drawing changes, so that a folder of an older version is not taken as current.
VERSION = 1
MANIFEST = 'shapes.json'

MAX_OBJECTS = 4
# Every length below is a fraction of the image's side, every area a fraction of its area.
DIAMETERS = (0.3, 0.65)
BIG_DIAMETERS = (0.95, 1.25)
BIG_CHANCE = 0.12
# Shapes stand roughly upright.
MAX_TURN = 0.35
MIN_VISIBLE_FRACTION = 0.65
MIN_VISIBLE_AREA = 0.005
# Anti-aliasing: shapes are filled at this many times the resolution, then averaged down.
SUPERSAMPLING = 4


class ShapesError(UsageError):
    """The shapes data set cannot be made as asked, or where asked."""


def make_shapes(
    root: str | Path = 'data/shapes',
    train: int = 1000,
    val: int = 200,
    size: int = 128,
    seed: int = 0,
) -> Path:
    """Write the shapes data set, or find it already written.

    The folder is laid out as COCO's own (``annotations/instances_train2017.json``, ``train2017/``,
    ``val2017/``), so any COCO config reads it. It appears under its name only when it is complete.
    An image depends on ``seed``, its split and its number alone, not on how many others there are.

    Args:
        root: The folder to make. A complete one with the same parameters is left as it is.
        train: Number of training images.
        val: Number of validation images.
        size: Side of the square images, in pixels, at least 64.
        seed: Non-negative seed. The same seed gives the same files, byte for byte.

    Returns:
        ``root`` as a path.

    Raises:
        ShapesError: A parameter is out of range, or ``root`` holds anything else than this data
            set with these parameters.
    """
    for name, value, least in (
        ('train', train, 1),
        ('val', val, 1),
        ('size', size, 64),
        ('seed', seed, 0),
    ):
        if value < least:
            raise ShapesError(f'{name} must be at least {least}, but is {value}.')
    root = Path(root)
    parameters = dict(version=VERSION, train=train, val=val, size=size, seed=seed)
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        _check_existing(root, parameters)
        return root

    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f'.{root.name}-') as scratch:
        unfinished = Path(scratch, 'shapes')
        for split, count in (('train', train), ('val', val)):
            _write_split(unfinished, split, count, size, seed)
        manifest = dict(parameters=parameters, sha256=_digests(unfinished))
        _write_json(unfinished / MANIFEST, manifest)
        os.rename(unfinished, root)
    return root


def draw_scene(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw one image of shapes that overlap, the later ones in front of the earlier ones.

    A shape that would hide too much of another one is not placed, so whatever can be seen is
    labelled and nothing that is labelled is almost hidden.

    Args:
        rng: The source of everything random in the image.
        size: Side of the square image, in pixels.

    Returns:
        The BGR image of shape ``(size, size, 3)``, uint8, and for each object, from back to front,
        its index in ``CLASSES`` and the boolean ``(size, size)`` mask of its visible pixels.
    """
    background = _colour(rng, saturation=(0.0, 0.35), value=(0.15, 0.95))
    image = _paint(rng, size, background)
    colours = [background]
    labels: list[int] = []
    areas: list[int] = []  # of the whole shapes, hidden pixels included
    owner = np.full((size, size), -1)  # the number of the object that each pixel shows

    wanted = rng.integers(1, MAX_OBJECTS + 1)
    big_first = rng.random() < BIG_CHANCE
    # Some tries fail in a crowded image; an image with fewer objects than wanted is a good image.
    for _ in range(4 * wanted):
        if len(labels) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        coverage = _coverage(rng, size, label, big=big_first and not labels)
        inside = coverage >= 0.5
        new_owner = np.where(inside, len(labels), owner)
        new_areas = np.array([*areas, inside.sum()])
        visible = np.bincount(new_owner.ravel() + 1, minlength=len(new_areas) + 1)[1:]
        least = np.maximum(MIN_VISIBLE_FRACTION * new_areas, MIN_VISIBLE_AREA * size**2)
        if (visible < least).any():
            continue
        # Edges must be there to be seen: the best of a few colours is the one least like the rest.
        candidates = [_colour(rng, saturation=(0.5, 1.0), value=(0.45, 1.0)) for _ in range(8)]
        colour = max(candidates, key=lambda c: min(np.linalg.norm(c - other) for other in colours))
        alpha = coverage[..., None]
        image = image * (1 - alpha) + _paint(rng, size, colour) * alpha
        owner = new_owner
        labels.append(label)
        areas.append(int(inside.sum()))
        colours.append(colour)

    image += rng.normal(0, rng.uniform(2, 8), image.shape)
    masks = [owner == number for number in range(len(labels))]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), list(zip(labels, masks, strict=True))


def _regular(corners: int, start: float = -0.25) -> np.ndarray:
    """Corners on the unit circle, of shape ``(corners, 2)``.

    Args:
        corners: Their number, evenly spread.
        start: Where the first one is, in turns clockwise from the right. Defaults to the top.
    """
    angles = (start + np.arange(corners) / corners) * 2 * np.pi
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


OUTLINES = dict(circle=_regular(64), square=_regular(4, start=0.125), triangle=_regular(3))


def _coverage(rng: np.random.Generator, size: int, label: int, big: bool) -> np.ndarray:
    """Place a shape at random: the covered part of each pixel, ``(size, size)`` in 0 to 1."""
    low, high = BIG_DIAMETERS if big else DIAMETERS
    # Log-uniform: as many objects between 20 and 40 pixels as between 40 and 80.
    radius = size * np.exp(rng.uniform(np.log(low), np.log(high))) / 2
    # The centre stays inside, so that the border cuts shapes but never leaves a mere corner.
    margin = 0.7 * min(radius, 0.4 * size)
    centre = rng.uniform(margin, size - margin, 2)
    angle = rng.uniform(-MAX_TURN, MAX_TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    scale = radius * np.diag([stretch, 1 / stretch])

    # OpenCV takes corners in whole steps of 1/16 pixel, pixel centres being whole numbers.
    outline = OUTLINES[CLASSES[label]] @ scale @ turn.T + centre
    corners = np.rint(16 * (outline * SUPERSAMPLING - 0.5)).astype(np.int32)
    canvas = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), np.float32)
    cv2.fillPoly(canvas, [corners], 1.0, shift=4)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """A random BGR colour of any hue, of shape ``(3,)``, in 0 to 255."""
    hsv = rng.uniform(0, 1), rng.uniform(*saturation), rng.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv)[::-1])


def _paint(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """A ``(size, size, 3)`` surface of a random texture between ``colour`` and a shade of it."""
    shade = colour * rng.uniform(0.8, 0.95)
    return colour + _texture(rng, size)[..., None] * (shade - colour)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random pattern, of shape ``(size, size)``, in 0 to 1: plain, stripes, dots, ..."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    frequency = 2 * np.pi / (size * rng.uniform(0.04, 0.1))
    kind = rng.choice(['plain', 'stripes', 'dots', 'gradient', 'clouds'])
    if kind == 'plain':
        return np.zeros((size, size))
    if kind == 'stripes':
        return np.clip(0.5 + 2 * np.sin(frequency * along), 0, 1)
    if kind == 'dots':
        return np.clip(2 * (np.cos(frequency * along) + np.cos(frequency * across)) - 1, 0, 1)
    if kind == 'gradient':
        pattern = along
    else:
        pattern = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 0.03 * size)
    return (pattern - pattern.min()) / np.ptp(pattern)


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    """Draw the images of a split and write them with their COCO annotations."""
    folder = root / f'{split}2017'
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    numbers = range(1, count + 1)
    for image_id in tqdm(numbers, desc=f'shapes: drawing {split}', unit='image', mininterval=1):
        # The split is part of the seed by its letters: numbers are all that a seed can hold.
        rng = np.random.default_rng([seed, *split.encode(), image_id])
        image, objects = draw_scene(rng, size)
        name = f'{image_id:012d}.png'
        (folder / name).write_bytes(cv2.imencode('.png', image)[1].tobytes())
        images.append(dict(id=image_id, file_name=name, width=size, height=size))
        for label, mask in objects:
            # Numbers from 1: pycocotools takes annotation 0 for "no match".
            annotation_id = len(annotations) + 1
            annotations.append(_annotation(annotation_id, image_id, label, mask))
    document = dict(
        info=dict(description='mmfish shapes', seed=seed, version=str(VERSION)),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)],
    )
    _write_json(root / 'annotations' / f'instances_{split}2017.json', document)


def _annotation(annotation_id: int, image_id: int, label: int, mask: np.ndarray) -> dict[str, Any]:
    """One object in COCO's form. Its mask is run-length coded: polygons cannot hold holes."""
    code = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=label + 1,
        bbox=mask_utils.toBbox(code).tolist(),
        area=int(mask_utils.area(code)),
        iscrowd=0,
        segmentation=dict(size=code['size'], counts=code['counts'].decode()),
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    """Write JSON in one fixed form, making the folder."""
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(document, sort_keys=True, separators=(',', ':'))
    path.write_text(text + '\n', encoding='utf-8')


def _digests(root: Path) -> dict[str, str]:
    """The SHA-256 of every file of the data set, by its path relative to ``root``."""
    files = sorted([*root.glob('*2017/*'), *root.glob('annotations/*')])
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _check_existing(root: Path, parameters: dict[str, int]) -> None:
    """Refuse a folder that is not the complete data set with these parameters."""
    advice = 'Delete it, or choose another folder.'
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        raise ShapesError(
            f'{root} already exists and is not a shapes data set (it has no readable {MANIFEST}). '
            f'{advice}'
        ) from None
    if manifest['parameters'] != parameters:
        raise ShapesError(
            f'{root} holds a shapes data set made with {_listed(manifest["parameters"])}, '
            f'but {_listed(parameters)} was asked for. {advice}'
        )
    found = _digests(root)
    expected = manifest['sha256']
    changed = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    if changed:
        raise ShapesError(
            f'{root} is not as it was made: {changed[0]} is missing, added or changed '
            f'({len(changed)} such files). {advice}'
        )


def _listed(parameters: dict[str, int]) -> str:
    """Parameters as a reader would write them, such as ``seed=0, size=128``."""
    return ', '.join(f'{name}={value}' for name, value in sorted(parameters.items()))

"""Checks of annotation files in COCO's format before a run; the errors name the wrong entry."""

import gc
import json
import logging
import mmap
import os
import re
from collections.abc import Collection, Sequence
from statistics import mode
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from mmfish.datasets.layouts import data_sets, is_remote, reads_like_coco
from mmfish.datasets.summary import Contents, contents_of
from mmfish.errors import DataError

# Polygons of three points or more, as JSON writes them: they are most of COCO's bytes, and to
# recognise them is faster than to parse their numbers. Any other segmentation is parsed.
_NUMBER = r'-?(?!0\d)\d+(?:\.\d+|)'
_POLYGON = rf'\[{_NUMBER}, ?{_NUMBER}(?:, ?{_NUMBER}, ?{_NUMBER}){{2,}}\]'
_POLYGONS = re.compile(rf'"segmentation": ?\[{_POLYGON}(?:, ?{_POLYGON})*\]'.encode())

# The lists that a file in COCO's format has.
PARTS = ('images', 'categories', 'annotations')


def check_annotation_files(cfg: Config, splits: tuple[str, ...]) -> dict[str, Contents]:
    """Check the annotation files of a config's data sets in COCO's format, each file once.

    Data sets that read other formats, and files that do not lie in a local folder, are left to
    MMDetection.

    Args:
        cfg: any config.
        splits: of 'train', 'val' and 'test'.

    Returns:
        What the first such file of each split has, by the split.

    Raises:
        DataError: a file is no JSON, has what `check_annotations` refuses, or lacks a category of
            the config's classes.
    """
    uses = {}
    for split in splits:
        for dataset, kind in data_sets(cfg, (split,)):
            if is_remote(dataset) or not reads_like_coco(kind):
                continue
            # With lazy_init the data set resolves its path and its classes, and reads nothing.
            left_out = {'type', '_scope_', 'pipeline'}
            options = {key: dataset[key] for key in dataset.keys() - left_out}
            unread = kind(**{**options, 'lazy_init': True})
            classes = unread.metainfo.get('classes') or ()
            classes = classes if isinstance(classes, str) else tuple(classes)
            of_file = uses.setdefault(os.path.abspath(unread.ann_file), {})
            of_file.setdefault(classes, []).append(split)
    found = {}
    for file, of_file in uses.items():
        content = read_json(file, polygons=False)
        check_annotations(content, file)
        for classes, users in of_file.items():
            _check_classes(content, classes, file)
            counted = contents_of(content, classes)
            for split in users:
                found.setdefault(split, counted)
    return {split: found[split] for split in splits if split in found}


def read_json(file: str, *, polygons: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        file: its path.
        polygons: read all of them. Without it, an empty list is in the place of good ones.

    Raises:
        DataError: it is no JSON.
    """
    # The garbage collector would go through the growing number of entries again and again.
    collects_garbage = gc.isenabled()
    gc.disable()
    try:
        with (
            open(file, 'rb') as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            content = text[:] if polygons else _POLYGONS.sub(b'"segmentation":[]', text)
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _not_coco(file, f'it is no JSON object ({error})') from error
    finally:
        if collects_garbage:
            gc.enable()


def check_annotations(content: Any, file: str) -> None:
    """Check a data set in COCO's format: fields, references, boxes, the form of masks.

    MMDetection leaves out boxes without area or outside their image, and ignores polygons of less
    than three points. COCO itself has some: they are counted in a warning. Anything else that
    MMDetection would fail at, hours later or in a worker process, is an error.

    Args:
        content: of the file. ``annotations`` may be missing, as in COCO's test sets.
        file: its path, for the message.

    Raises:
        DataError: names the entry, what is wrong and what was expected.
    """
    content = check_entries(content, file)
    images, annotations = content['images'], content['annotations']
    image_ids, category_ids, annotation_ids = (
        [entry['id'] for entry in content[part]] for part in PARTS
    )
    sizes = np.hstack([_numbers(content, 'images', side, 1, file) for side in ('width', 'height')])
    if (sizes <= 0).any():
        raise _wrong(file, 'image', images[(sizes <= 0).any(1).argmax()], 'has no width or height')

    images_of = _ids(content, 'annotations', 'image_id', file)
    categories_of = _ids(content, 'annotations', 'category_id', file)
    for kind, used, known in (
        ('image', images_of, image_ids),
        ('category', categories_of, category_ids),
    ):
        unknown = set(used).difference(known)
        if unknown:
            index = next(i for i, value in enumerate(used) if value in unknown)
            raise _wrong(
                file,
                'annotation',
                annotations[index],
                f'is of {kind} {used[index]}, which is not among {_some(known)}',
            )
    boxes = _numbers(content, 'annotations', 'bbox', 4, file)
    areas = _numbers(content, 'annotations', 'area', 1, file)[:, 0]
    if not annotations:
        return

    number = {image_id: i for i, image_id in enumerate(image_ids)}
    sizes = sizes[[number[image_id] for image_id in images_of]]
    width, height = sizes.T
    x, y, w, h = boxes.T
    inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (
        np.minimum(y + h, height) > np.maximum(y, 0)
    )
    useless = ~inside | (areas <= 0) | (w < 1) | (h < 1)
    few_points = []
    for i, annotation in enumerate(annotations):
        mask = annotation.get('segmentation')
        problem = mask and _mask_problem(mask, (int(height[i]), int(width[i])))
        if problem:
            raise _wrong(file, 'annotation', annotation, problem)
        if isinstance(mask, list) and any(len(p) < 6 or len(p) % 2 for p in mask):
            few_points.append(i)
    for indices, what in (
        (np.flatnonzero(useless), 'a box without area (of a pixel at least) or outside its image'),
        (few_points, 'a polygon of less than three points'),
    ):
        if len(indices):
            _warn(
                f'{file}: {len(indices)} of {len(annotations)} annotations have {what}, which '
                f'MMDetection leaves out (the first is annotation {annotation_ids[indices[0]]})'
            )
    if useless.all():
        raise DataError(
            f'{file}: all {len(annotations)} annotations have a box without area or outside its '
            'image: expected [x, y, width, height] in pixels'
        )


def check_entries(content: Any, file: str) -> dict:
    """Check the entries that everything else refers to: ids, names of images and of categories.

    Args:
        content: of the file. ``annotations`` may be missing, as in COCO's test sets.
        file: its path, for the message.

    Returns:
        The content, with an empty list for missing annotations.

    Raises:
        DataError: names the entry, what is wrong and what was expected.
    """
    if not isinstance(content, dict):
        raise _not_coco(file, 'it is no JSON object')
    content = {'annotations': [], **content}
    for part in PARTS:
        entries = content.get(part)
        if not isinstance(entries, list) or not (entries or part == 'annotations'):
            raise _not_coco(file, f'it has no list of "{part}"')
        _ids(content, part, 'id', file)
    _column(content, 'categories', 'name', file)
    for image, name in zip(
        content['images'], _column(content, 'images', 'file_name', file), strict=True
    ):
        if not isinstance(name, str) or not name:
            raise _wrong(file, 'image', image, f'has the file_name {name!r}')
    return content


def category_names(file: str) -> list[str] | None:
    """The names of the categories of a file, in its order, found without reading all of it.

    Args:
        file: its path.

    Returns:
        The names; None if there are none where a file in COCO's format has them.
    """
    try:
        with (
            open(file, 'rb') as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            start = re.search(rb'"categories"\s*:\s*(?=\[)', text).end()
            # What comes after the list does not matter; a megabyte holds thousands of categories.
            part = text[start : start + (1 << 20)].decode(errors='ignore')
        categories, _ = json.JSONDecoder().raw_decode(part)
        return [category['name'] for category in categories]
    except (ValueError, AttributeError, KeyError, TypeError):
        return None


def run_lengths_problem(mask: dict, size: tuple[int, int]) -> str | None:
    """What is wrong with a mask's run lengths, found before pycocotools' C code reads them.

    Args:
        mask: dict(size, counts).
        size: height and width of the image.

    Returns:
        What the mask has, for an error message ('has run lengths ...'); None if nothing is wrong.
    """
    if list(mask['size'] if isinstance(mask['size'], Sequence) else ()) != list(size):
        return f'has run lengths for an image of {mask["size"]}, and its image is {list(size)}'
    if isinstance(mask['counts'], list):
        try:
            lengths = np.array(mask['counts'])
        except ValueError:  # lists within the list
            lengths = np.array(None)
        whole = lengths.dtype.kind == 'i' and lengths.ndim == 1 and lengths.size
        if not whole or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
            return f'has run lengths that do not add up to {size[0]} x {size[1]} pixels'
    return None


def _mask_problem(mask: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with a segmentation; None if it is polygons, or run lengths for its image."""
    if isinstance(mask, list):
        if all(isinstance(polygon, list) for polygon in mask):
            return None
        return 'has polygons that are no lists: expected [[x, y, x, y, ...], ...]'
    if not isinstance(mask, dict) or not {'size', 'counts'} <= mask.keys():
        return 'has a segmentation that is neither polygons nor run lengths with size and counts'
    if not isinstance(mask['counts'], list | str):
        kind = type(mask['counts']).__name__
        return f'has run lengths of type {kind}: expected a list or a string'
    return run_lengths_problem(mask, size)


def _check_classes(content: dict, classes: str | tuple[str, ...], file: str) -> None:
    """Check that a file has the config's classes: missing ones would shift all the labels."""
    if isinstance(classes, str):
        raise DataError(
            f'metainfo of the data set of {file} has classes={classes!r}: expected a tuple of '
            f'names, as in ({classes!r},)'
        )
    names = [category['name'] for category in content['categories']]
    lacking = [name for name in classes if name not in names]
    if lacking:
        raise DataError(
            f'{file} has no category {lacking[0]!r}, one of {len(lacking)} classes of the config '
            f'that it lacks: it has {_some(names)}; --data-root FOLDER fits the config to the '
            'classes of the data set there, or name some in metainfo=dict(classes=(...))'
        )
    others = {c['id'] for c in content['categories'] if c['name'] not in classes}
    if classes and others:
        count = sum(a['category_id'] in others for a in content.get('annotations', ()))
        _warn(
            f'{file}: {count} annotations of {len(others)} categories are left out, because these '
            'categories are not among the classes of the config'
        )


def _column(content: dict, part: str, field: str, file: str) -> list:
    """One field of all entries of a part."""
    try:
        return [entry[field] for entry in content[part]]
    except (KeyError, TypeError, IndexError):
        entries = content[part]
        entry = next(e for e in entries if not isinstance(e, dict) or field not in e)
        raise _not_coco(file, f'of its "{part}" {entry!r:.60} has no "{field}"') from None


def _ids(content: dict, part: str, field: str, file: str) -> list[int | str]:
    ids = _column(content, part, field, file)
    for value in ids:
        if not isinstance(value, (int, str)):
            raise _not_coco(file, f'its "{part}" has the {field} {value!r:.40}')
    if field == 'id' and len(set(ids)) < len(ids):
        raise _not_coco(file, f'its "{part}" has the id {mode(ids)!r} twice')
    return ids


def _numbers(content: dict, part: str, field: str, count: int, file: str) -> np.ndarray:
    """A field of ``count`` numbers of all entries of a part, (N, count)."""

    def table(values: list) -> np.ndarray | None:
        try:
            numbers = np.array(values)
        except ValueError:  # rows of different lengths
            return None
        good = numbers.dtype.kind in 'iuf' and numbers.size == count * len(values)
        return numbers.reshape(-1, count) if good and np.isfinite(numbers).all() else None

    values = _column(content, part, field, file)
    numbers = table(values)
    if numbers is None:
        # Where each entry is good by itself, the numbers have no common type: name the first.
        wrong = next((i for i, value in enumerate(values) if table([value]) is None), 0)
        problem = f'has {field} {values[wrong]!r:.60}: expected numbers, {count} in all'
        raise _wrong(file, part.removesuffix('s'), content[part][wrong], problem)
    return numbers


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)


def _some(values: Collection) -> str:
    values = [str(value) for value in values]
    return ', '.join(values[:10]) + (f' and {len(values) - 10} more' if len(values) > 10 else '')


def _not_coco(file: str, problem: str) -> DataError:
    return DataError(
        f"{file} is not in COCO's format: {problem}; expected is an object with lists of images, "
        'categories and annotations, as in instances_train2017.json'
    )


def _wrong(file: str, kind: str, entry: dict, problem: str) -> DataError:
    return DataError(f'{file}: {kind} {entry["id"]!r} {problem}; correct it or take it out')

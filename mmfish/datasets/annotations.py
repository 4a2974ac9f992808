"""Annotation files checked while MMDetection reads them: what is wrong is named before a run."""

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmengine.logging import print_log

from mmfish.errors import DataError

# What MMDetection reads of each entry; other fields are optional.
FIELDS = dict(
    images=('id', 'file_name', 'height', 'width'),
    categories=('id', 'name'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
)


@contextmanager
def checked_annotations() -> Iterator[None]:
    """While this lasts, MMDetection's data sets of COCO's format read with `CheckedCOCO`."""
    before = CocoDataset.COCOAPI
    CocoDataset.COCOAPI = CheckedCOCO
    try:
        yield
    finally:
        CocoDataset.COCOAPI = before


class CheckedCOCO(COCO):
    """pycocotools' reader, with a look at what it has read.

    Args:
        annotation_file: path of a file with instances in COCO's format.

    Raises:
        DataError: as in `check_annotations`, or the file is no JSON.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        self.file = annotation_file
        try:
            super().__init__(annotation_file)
        except (ValueError, AssertionError, RecursionError) as error:
            raise _not_coco(annotation_file, f'it is no JSON object ({error})') from error

    def createIndex(self) -> None:  # noqa: N802
        """Check what was read, then index it."""
        check_annotations(self.dataset, str(self.file))
        super().createIndex()

    def get_cat_ids(
        self, cat_names: Collection[str] = (), sup_names: Any = (), cat_ids: Any = ()
    ) -> list:
        """The ids of categories; those without a name in the file would shift all the labels.

        Raises:
            DataError: the file has no category of one of the names.
        """
        names = [category['name'] for category in self.dataset['categories']]
        if isinstance(cat_names, str):
            raise DataError(
                f'metainfo of the data set of {self.file} has classes={cat_names!r}: expected a '
                f'tuple of names, as in ({cat_names!r},)'
            )
        unknown = [name for name in cat_names if name not in names]
        if unknown:
            raise DataError(
                f'{self.file} has no category {unknown[0]!r}, one of {len(unknown)} classes of the '
                f'config that it lacks: it has {_some(names)}; name the classes to train in '
                'metainfo=dict(classes=(...)) of the data set'
            )
        others = {c['id'] for c in self.dataset['categories'] if c['name'] not in set(cat_names)}
        if cat_names and others:
            count = sum(a['category_id'] in others for a in self.dataset.get('annotations', ()))
            print_log(
                f'{self.file}: left out are {count} annotations of {len(others)} categories which '
                'are not among the classes of the config',
                'current',
                logging.WARNING,
            )
        return super().get_cat_ids(cat_names, sup_names, cat_ids)


def check_annotations(content: dict[str, Any], file: str) -> None:
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
    for part, fields in FIELDS.items():
        entries = content.get(part, [] if part == 'annotations' else None)
        if not isinstance(entries, list) or not (entries or part == 'annotations'):
            raise _not_coco(file, f'it has no list of "{part}"')
        _check_entries(entries, part, fields, file)
    images, annotations = content['images'], content.get('annotations', [])

    for image in images:
        if not isinstance(image['file_name'], str) or not image['file_name']:
            raise _wrong(file, 'image', image, f'has the file_name {image["file_name"]!r}')
    sizes = _numbers(images, ('width', 'height'), 'image', file, 2)
    if (sizes <= 0).any():
        raise _wrong(file, 'image', images[(sizes <= 0).any(1).argmax()], 'has no width or height')
    if not annotations:
        return

    number = {image['id']: i for i, image in enumerate(images)}
    categories = {category['id'] for category in content['categories']}
    for annotation in annotations:
        if annotation['image_id'] not in number:
            problem = f'is of image {annotation["image_id"]}, which is not among the images'
            raise _wrong(file, 'annotation', annotation, problem)
        if annotation['category_id'] not in categories:
            problem = f'is of category {annotation["category_id"]}, which is not among the'
            raise _wrong(
                file, 'annotation', annotation, f'{problem} categories {_some(categories)}'
            )

    width, height = sizes[[number[annotation['image_id']] for annotation in annotations]].T
    boxes = _numbers(annotations, ('bbox',), 'annotation', file, 4)
    areas = _numbers(annotations, ('area',), 'annotation', file, 1)[:, 0]
    x, y, w, h = boxes.T
    inside = (np.minimum(x + w, width) > np.maximum(x, 0)) & (
        np.minimum(y + h, height) > np.maximum(y, 0)
    )
    useless = ~inside | (areas <= 0) | (w < 1) | (h < 1)
    shapes = zip(height.astype(int).tolist(), width.astype(int).tolist(), strict=True)
    few_points = [
        i
        for i, (annotation, shape) in enumerate(zip(annotations, shapes, strict=True))
        if annotation.get('segmentation') and not _check_mask(annotation, shape, file)
    ]
    for indices, what in (
        (np.flatnonzero(useless), 'a box without area (of a pixel at least) or outside its image'),
        (few_points, 'a polygon of less than three points'),
    ):
        if len(indices):
            print_log(
                f'{file}: {len(indices)} of {len(annotations)} annotations have {what}, which '
                f'MMDetection leaves out (the first is annotation {annotations[indices[0]]["id"]})',
                'current',
                logging.WARNING,
            )
    if useless.all():
        raise DataError(
            f'{file}: all {len(annotations)} annotations have a box without area or outside its '
            'image: expected [x, y, width, height] in pixels'
        )


def mask_problem(mask: Any, size: tuple[int, int]) -> str | None:
    """What makes a mask useless for an image, before pycocotools' C code meets it.

    Args:
        mask: polygons [[x, y, x, y, ...], ...], or run lengths dict(size, counts).
        size: height and width of the image.

    Returns:
        The end of a sentence that begins with the mask, or None. Polygons with too few points are
        no problem: they are ignored.
    """
    if isinstance(mask, list):
        for polygon in mask:
            if not isinstance(polygon, list | np.ndarray):
                return 'has polygons that are no lists: expected [[x, y, x, y, ...], ...]'
        return None
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        return 'has a segmentation that is neither polygons nor run lengths with size and counts'
    if list(mask['size'] if isinstance(mask['size'], Sequence) else ()) != list(size):
        return f'has run lengths for an image of {mask["size"]}, and its image is {list(size)}'
    counts = mask['counts']
    if isinstance(counts, list):
        try:
            lengths = np.array(counts)
        except ValueError:  # lists within the list
            lengths = np.array(None)
        whole = lengths.dtype.kind == 'i' and lengths.ndim == 1 and lengths.size
        if not whole or lengths.min() < 0 or lengths.sum() != size[0] * size[1]:
            return f'has run lengths that do not add up to {size[0]} x {size[1]} pixels'
    elif not isinstance(counts, str | bytes):
        return f'has run lengths of type {type(counts).__name__}: expected a list or a string'
    return None


def _check_mask(annotation: dict, size: tuple[int, int], file: str) -> bool:
    """Whether all polygons have enough points."""
    mask = annotation['segmentation']
    problem = mask_problem(mask, size)
    if problem:
        raise _wrong(file, 'annotation', annotation, problem)
    return isinstance(mask, dict) or all(len(p) >= 6 and len(p) % 2 == 0 for p in mask)


def _check_entries(entries: list, part: str, fields: tuple[str, ...], file: str) -> None:
    ids = set()
    needed = set(fields)
    id_fields = [field for field in fields if field.endswith('id')]
    for entry in entries:
        if not isinstance(entry, dict):
            raise _not_coco(file, f'its "{part}" has {entry!r:.40}')
        if not needed <= entry.keys():
            lacking = next(field for field in fields if field not in entry)
            raise _not_coco(file, f'of its "{part}" {entry!r:.60} has no "{lacking}"')
        for field in id_fields:
            if not isinstance(entry[field], (int, str)):
                raise _not_coco(file, f'its "{part}" has the {field} {entry[field]!r:.40}')
        ids.add(entry['id'])
    if len(ids) < len(entries):
        seen = set()
        twice = next(e['id'] for e in entries if e['id'] in seen or seen.add(e['id']))
        raise _not_coco(file, f'its "{part}" has the id {twice!r} twice')


def _numbers(
    entries: list[dict], fields: tuple[str, ...], kind: str, file: str, count: int
) -> np.ndarray:
    """The fields of all entries, (N, count)."""

    def table(rows: list[dict]) -> np.ndarray | None:
        try:
            values = np.array([[row[field] for field in fields] for row in rows])
        except ValueError:  # rows of different lengths
            return None
        good = values.dtype.kind in 'iuf' and values.size == count * len(rows)
        return values.reshape(-1, count) if good and np.isfinite(values).all() else None

    numbers = table(entries)
    if numbers is None:
        # Each is good if the numbers of some are too large for the others' type.
        wrong = next((entry for entry in entries if table([entry]) is None), entries[0])
        values = ', '.join(f'{field} {wrong[field]!r:.60}' for field in fields)
        raise _wrong(file, kind, wrong, f'has {values}: expected numbers, {count} in all')
    return numbers


def _some(values: Collection) -> str:
    values = [str(value) for value in values]
    return ', '.join(values[:10]) + (f' and {len(values) - 10} more' if len(values) > 10 else '')


def _not_coco(file: str | None, problem: str) -> DataError:
    return DataError(
        f"{file} is not in COCO's format: {problem}; expected is an object with lists of images, "
        'categories and annotations, as in instances_train2017.json'
    )


def _wrong(file: str, kind: str, entry: dict, problem: str) -> DataError:
    return DataError(f'{file}: {kind} {entry["id"]!r} {problem}; correct it or take it out')

"""What a data set has, in a table of at most 80 columns that is read before a training."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np

WIDTH = 80
# Classes with fewer objects to train on are named: a detector hardly learns them.
FEW = 10
# Up to so many classes have a line each; more share lines.
LINES = 24


@dataclass
class Contents:
    """What an annotation file in COCO's format has for a data set of some classes.

    Attributes:
        objects: how many objects each class has; without those that are left out.
        images: how many.
        empty: how many images have no object.
        image_sizes: width and height of each image, (images, 2).
        object_sizes: the square root of the area of each object's box, in pixels.
        crowds: how many objects are crowds, which are not trained on.
        no_area: how many have a box of less than a pixel, or outside of the image.
        other: how many are of other categories, by their names.
    """

    objects: Mapping[str, int]
    images: int
    empty: int
    image_sizes: np.ndarray
    object_sizes: np.ndarray
    crowds: int
    no_area: int
    other: Mapping[str, int]


def contents_of(content: Mapping[str, Any], classes: Sequence[str]) -> Contents:
    """Count what a file has.

    Args:
        content: of a file that `mmfish.datasets.annotations.check_annotations` has passed.
        classes: of the data set; empty for all categories.
    """
    names = {category['id']: category['name'] for category in content['categories']}
    classes = classes or list(names.values())
    sizes = {i['id']: (float(i['width']), float(i['height'])) for i in content['images']}
    objects, other = Counter(dict.fromkeys(classes, 0)), Counter()
    other.update({name: 0 for name in names.values() if name not in objects})
    crowds = no_area = 0
    with_objects, object_sizes = set(), []
    for annotation in content.get('annotations', ()):
        name, image = names[annotation['category_id']], annotation['image_id']
        x, y, w, h = map(float, annotation['bbox'])
        width, height = sizes[image]
        outside = min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0)
        if name not in objects:
            other[name] += 1
        elif outside or float(annotation['area']) <= 0 or w < 1 or h < 1:
            no_area += 1
        elif annotation.get('iscrowd'):
            crowds += 1
        else:
            objects[name] += 1
            with_objects.add(image)
            object_sizes.append((w * h) ** 0.5)
    return Contents(
        objects=objects,
        images=len(sizes),
        empty=len(sizes) - len(with_objects),
        image_sizes=np.array(list(sizes.values())),
        object_sizes=np.array(object_sizes),
        crowds=crowds,
        no_area=no_area,
        other=other,
    )


def summary(splits: Mapping[str, Contents]) -> str:
    """A table of the splits of a data set, and notes about what is missing in it.

    Args:
        splits: what each split has, by its name.
    """
    rows = [
        ('images', [f'{c.images:,}' for c in splits.values()]),
        ('  without objects', [f'{c.empty:,}' for c in splits.values()]),
        ('  width', [_range(c.image_sizes[:, 0]) for c in splits.values()]),
        ('  height', [_range(c.image_sizes[:, 1]) for c in splits.values()]),
        ('objects', [f'{sum(c.objects.values()):,}' for c in splits.values()]),
        ('  size, in pixels', [_range(c.object_sizes) for c in splits.values()]),
        ('  median size', [_median(c.object_sizes) for c in splits.values()]),
    ]
    left_out = (
        ('left out: crowds', [c.crowds for c in splits.values()]),
        ('left out: boxes of no area', [c.no_area for c in splits.values()]),
        ('left out: other categories', [sum(c.other.values()) for c in splits.values()]),
    )
    rows += [(name, [f'{n:,}' for n in counts]) for name, counts in left_out if any(counts)]
    classes = list(dict.fromkeys(name for c in splits.values() for name in c.objects))
    counts = [(name, [f'{c.objects.get(name, 0):,}' for c in splits.values()]) for name in classes]
    title = f'objects of {len(classes)} {"class" if len(classes) == 1 else "classes"}'
    heads = list(splits)
    lines = _table('data set', heads, rows)
    if len(classes) <= LINES:
        lines += ['', *_table(title, heads, counts)]
    else:
        lines += ['', f'{title}, {" / ".join(heads)}', *_columns(counts)]
    lines += _notes(splits)
    return '\n'.join(lines)


def _notes(splits: Mapping[str, Contents]) -> list[str]:
    notes = []
    for name, contents in splits.items():
        # To validate a class, a few objects are enough.
        least = FEW if name == 'train' else 1
        few = [f'{c} ({n})' if n else c for c, n in contents.objects.items() if n < least]
        if few:
            what = f'fewer than {FEW}' if name == 'train' else 'no'
            notes.append(f'{what} objects in {name}: {_some(few)}')
        unused = [c for c, n in contents.other.items() if not n]
        if unused:
            notes.append(f'no classes, and without objects in {name}: {_some(unused)}')
    if not notes:
        return []
    return ['', *(line for note in notes for line in wrap(note, WIDTH, subsequent_indent='  '))]


def _table(title: str, heads: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    cells = [heads, *(values for _, values in rows)]
    widths = [max(12, *(len(row[i]) for row in cells)) for i in range(len(heads))]
    room = min(max(28, *(len(name) for name, _ in rows)), WIDTH - sum(widths) - 2 * len(widths))
    lines = [(title, heads), *rows]
    table = [
        _short(name, room).ljust(room)
        + ''.join(f'  {value:>{width}}' for value, width in zip(values, widths, strict=True))
        for name, values in lines
    ]
    table.insert(1, '-' * len(table[0]))
    return table


def _columns(counts: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Names and numbers in as many columns as there is room for, read downwards."""
    entries = [(_short(name, 40), ' / '.join(values)) for name, values in counts]
    width = max(len(name) + len(numbers) for name, numbers in entries) + 1
    columns = max(1, (WIDTH + 3) // (width + 3))
    height = -(-len(entries) // columns)
    cells = [f'{name}{numbers:>{width - len(name)}}' for name, numbers in entries]
    return ['   '.join(cells[i::height]) for i in range(height)]


def _range(values: np.ndarray) -> str:
    if not len(values):
        return '-'
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f'{low} to {high}'


def _median(values: np.ndarray) -> str:
    return str(int(np.median(values))) if len(values) else '-'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f'{text[: length - 3]}...'


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:15]) + (f' and {len(names) - 15} more' if len(names) > 15 else '')

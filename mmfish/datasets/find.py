"""Annotations in COCO's format and their images, wherever a folder has them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfish.datasets.annotations import check_entries, read_json
from mmfish.datasets.split import is_validation
from mmfish.errors import DataError, MissingDataError, UsageError

# The words that name a split, in the names of files and folders.
ROLES = dict(
    train='train',
    training='train',
    val='val',
    valid='val',
    validation='val',
    test='test',
    testing='test',
)
# COCO's files that list no objects with boxes.
OTHER_TASKS = ('captions', 'image_info', 'keypoints', 'panoptic', 'person_keypoints', 'stuff')
# How many of the images of a file are looked for in each folder.
SAMPLE = 20
EXPECTED = (
    "expected are annotations in COCO's format, as annotations/instances_train2017.json with its "
    'images in train2017/, train.json with images/, or train/_annotations.coco.json; `mmfish '
    'convert-data` makes them from Pascal VOC, YOLO and binary masks'
)


@dataclass
class Split:
    """One split of a data set.

    Attributes:
        role: 'train', 'val' or 'test'.
        file: the path of its annotations.
        content: of that file, in COCO's format.
        images: the folder that the names of its images start from.
        changed: whether ``content`` is no longer what ``file`` has.
    """

    role: str
    file: str
    content: dict[str, Any] = field(repr=False)
    images: str
    changed: bool = False


def find_splits(
    root: str, val_fraction: float | None = None, *, training: bool = True
) -> dict[str, Split]:
    """Find the splits of a data set, each an annotation file and the folder of its images.

    Args:
        root: the folder of the data set.
        val_fraction: how many of the images of the only annotation file become the split 'val',
            between 0 and 1. Whether an image does depends on its name alone.
        training: whether 'train' and 'val' are needed; without it one split is enough.

    Returns:
        The splits by their roles: 'train' and 'val', and 'test' if there is one with annotations.

    Raises:
        UsageError: there are several files for a split, or ``val_fraction`` is missing, or given
            though there is a split for validation already, or leaves a split without images.
        MissingDataError: the folder, annotations or images are not there.
        DataError: a file is not in COCO's format.
    """
    if not os.path.isdir(root):
        found = 'is a file' if os.path.exists(root) else 'is not there'
        raise MissingDataError(f'the folder of the data set, {root}, {found}: {EXPECTED}')
    files = _annotation_files(root)
    if 'train' not in files and (training or val_fraction is not None or not files):
        has = f'has annotations for {" and ".join(files)} only' if files else 'has no annotations'
        raise MissingDataError(f'the data set in {root} {has}: {EXPECTED}')
    if 'val' in files and val_fraction is not None:
        raise UsageError(
            f'--val-fraction is for a data set with one annotation file, and {root} has one for '
            f'validation already, {files["val"]}: leave it out'
        )
    if training and 'val' not in files and val_fraction is None:
        raise UsageError(
            f'{root} has no annotations for validation, only {files["train"]}: give --val-fraction '
            '0.2 to take a fifth of its images for that, or add a file such as val.json'
        )
    splits = {}
    for role, file in files.items():
        content = read_annotations(file)
        if role != 'test' or content['annotations'] or not splits:
            splits[role] = Split(role, file, content, _find_images(root, role, file, content))
    if val_fraction is not None:
        splits |= _halves(splits['train'], val_fraction)
    return splits


def read_annotations(file: str) -> dict[str, Any]:
    """The content of a file in COCO's format, with a list of annotations even if it has none.

    Args:
        file: its path.

    Raises:
        DataError: it is not in that format; the message says why.
    """
    content = check_entries(read_json(file), file)
    for category in content['categories']:
        if not isinstance(category['name'], str) or not category['name'].strip():
            raise DataError(
                f'{file}: category {category["id"]!r} has the name {category["name"]!r}: expected '
                'is some text'
            )
    return content


def agree_on_classes(splits: Mapping[str, Split]) -> tuple[str, ...]:
    """The classes of a data set, in an order in which all of its files have them.

    MMDetection numbers classes in the order of each file, so the order of 'train' is given to the
    others. A category without objects that some tools write in front, 'background' or the parent of
    all others, is no class. It is taken out of the files where a class has the same name.

    Args:
        splits: as `find_splits` returns them. ``content`` and ``changed`` are set where needed.

    Raises:
        DataError: two categories of a file have the same name, or the files have different ones.
    """
    used = {
        (role, annotation['category_id'])
        for role, split in splits.items()
        for annotation in split.content['annotations']
    }
    used_names = {
        category['name']
        for role, split in splits.items()
        for category in split.content['categories']
        if (role, category['id']) in used
    }
    names: dict[str, list[str]] = {}
    for role, split in splits.items():
        categories = split.content['categories']
        kept = [
            category
            for i, category in enumerate(categories)
            if (role, category['id']) in used
            or not _is_placeholder(category, categories[:i] + categories[i + 1 :], used_names)
        ]
        names[role] = [category['name'] for category in kept]
        if not kept:
            raise DataError(f'{split.file} has no category with objects: expected is one at least')
        name, count = Counter(names[role]).most_common(1)[0]
        if count > 1:
            raise DataError(
                f'{split.file} has {count} categories with the name {name!r}: MMDetection tells '
                'classes by their names; rename or merge them'
            )
        left_out = {c['name'] for c in categories} - set(names[role])
        if len(left_out) < len(categories) - len(kept):
            # MMDetection would take both categories of that name for classes.
            split.content, split.changed = {**split.content, 'categories': kept}, True
    classes = names['train'] if 'train' in names else next(iter(names.values()))
    for role, own in names.items():
        if set(own) != set(classes):
            raise _other_classes(splits, role, set(own) ^ set(classes), own)
        if own != classes:
            split = splits[role]
            place = {name: i for i, name in enumerate(classes)}
            categories = [c for c in split.content['categories'] if c['name'] in place]
            categories.sort(key=lambda category: place[category['name']])
            split.content, split.changed = {**split.content, 'categories': categories}, True
    return tuple(classes)


def without_mask(split: Split) -> int:
    """How many objects of a split have no mask, neither polygons nor run lengths."""
    return sum(not annotation.get('segmentation') for annotation in split.content['annotations'])


def role_of(path: str) -> str | None:
    """The split that a relative path names, its last part first; None if none or several do."""
    for part in reversed(Path(path).parts):
        roles = {ROLES[word] for word in re.findall('[a-z]+', part.lower()) if word in ROLES}
        if roles:
            return roles.pop() if len(roles) == 1 else None
    return None


def _annotation_files(root: str) -> dict[str, str]:
    """The annotation files of a folder by their roles; one without a role counts as 'train'."""
    by_role: dict[str | None, list[str]] = {}
    for pattern in ('*.json', '*/*.json', '*/annotations/*.json'):
        for path in sorted(Path(root).glob(pattern)):
            name = path.relative_to(root).as_posix()
            if not path.name.startswith(OTHER_TASKS) and '/.' not in f'/{name}':
                by_role.setdefault(role_of(name), []).append(str(path))
    unnamed = by_role.pop(None, [])
    if 'train' not in by_role and unnamed:
        by_role['train'] = unnamed
    files = {}
    for role in ('train', 'val', 'test'):
        candidates = by_role.get(role, [])
        if len(candidates) > 1:
            candidates = [file for file in candidates if _may_be_coco(file)] or candidates
        if len(candidates) > 1:
            instances = [f for f in candidates if os.path.basename(f).startswith('instances_')]
            candidates = instances if len(instances) == 1 else candidates
        if len(candidates) > 1:
            more = f' and {len(candidates) - 3} more' if len(candidates) > 3 else ''
            raise UsageError(
                f'{root} has several annotation files for {role}: {", ".join(candidates[:3])}'
                f'{more}; keep one in the folder, or merge them'
            )
        if candidates:
            files[role] = candidates[0]
    return files


def _may_be_coco(file: str) -> bool:
    text = Path(file).read_bytes()
    return all(f'"{part}"'.encode() in text for part in ('images', 'categories'))


def _find_images(root: str, role: str, file: str, content: Mapping[str, Any]) -> str:
    """The folder that has most of the images that an annotation file lists.

    Of several with the same number, the one that is named as the split, and is nearest to the file.
    """
    names = [image['file_name'] for image in content['images']]
    sample = names[:: max(1, len(names) // SAMPLE)]
    home = os.path.dirname(file)

    def merit(folder: str) -> tuple[int, bool, bool, int]:
        found = sum(os.path.isfile(os.path.join(folder, name)) for name in sample)
        named = role_of(os.path.relpath(folder, root))
        depth = len(Path(folder).parts)
        return found, named == role, named is None, -depth

    best = max([home, *_folders(root)], key=merit)
    if not merit(best)[0]:
        raise MissingDataError(
            f'none of the {len(names)} images that {file} lists is in {root} or its folders: '
            f'expected {names[0]} in images/, {role}/, {role}2017/ or beside the file'
        )
    return best


def _folders(root: str) -> Iterator[str]:
    """A folder and those within it, two levels deep."""
    yield root
    level = [root]
    for _ in range(2):
        level = [
            entry.path
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith('.')
        ]
        yield from level


def _halves(split: Split, val_fraction: float) -> dict[str, Split]:
    """A split divided into 'train' and 'val'."""
    images = split.content['images']
    halves = {}
    for role in ('train', 'val'):
        chosen = [
            i for i in images if is_validation(i['file_name'], val_fraction) == (role == 'val')
        ]
        if not chosen:
            raise UsageError(
                f'--val-fraction {val_fraction:g} leaves no image of the {len(images)} of '
                f'{split.file} for {role}: choose another fraction'
            )
        ids = {image['id'] for image in chosen}
        annotations = [a for a in split.content['annotations'] if a['image_id'] in ids]
        content = {**split.content, 'images': chosen, 'annotations': annotations}
        halves[role] = Split(role, split.file, content, split.images, changed=True)
    return halves


def _is_placeholder(
    category: Mapping[str, Any], others: Sequence[Mapping[str, Any]], used_names: Iterable[str]
) -> bool:
    """Whether a category without objects stands for no class, as some tools write one."""
    name = category['name']
    if not others:
        return False
    if name.strip('_ ').lower() == 'background':
        return name not in used_names
    # Used in one file, a category that stands for all others is a class in the other files too.
    named = name not in used_names or any(other['name'] == name for other in others)
    return named and all(other.get('supercategory') == name for other in others)


def _other_classes(
    splits: Mapping[str, Split], role: str, different: set[str], own: Sequence[str]
) -> DataError:
    train = splits['train'] if 'train' in splits else next(iter(splits.values()))
    name = min(different)
    has, lacks = (splits[role], train) if name in own else (train, splits[role])
    others = f' and {len(different) - 1} others' if len(different) > 1 else ''
    return DataError(
        f'{has.file} has the category {name!r}{others}, and {lacks.file} does not: the files of a '
        'data set need the same categories, also those without objects'
    )

"""Where a config's data set lies, and whether it is all there."""

import json
import mmap
import os
import re
from collections.abc import Iterator
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS
from mmpretrain.datasets import ImageNet

from mmfish.errors import DataError, MissingDataError, UsageError
from mmfish.registry import component

# What is expected and what to do, for the error about a missing data set.
COCO = (
    'the layout of COCO 2017 (annotations/instances_{train,val}2017.json, train2017/, val2017/, '
    'from https://cocodataset.org): put it there or name its folder with --data-root, which takes '
    'data of your own in other layouts too, or see FishNet at work without any download with '
    '`make demo`'
)
IMAGENET = (
    'the layout of ImageNet (train/ and val/, each with a folder of images for each of the 1000 '
    'classes, or with a list of images and labels in meta/train.txt and meta/val.txt; from '
    'https://image-net.org): put it there or name its folder with --data-root, or see FishNet '
    'classify without any download with `python tools/train.py demo/configs/fishnet55_digits.py`'
)

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def set_data_root(cfg: Config, root: str | os.PathLike) -> None:
    """Point every data set and evaluator of a config to another folder of the same layout.

    Args:
        cfg: changed in place.
        root: takes the place of the ``data_root`` of all data sets, also at the beginning of other
            paths. Where one ``data_root`` is the parent of the others, it takes the place of the
            parent, and the others stay folders within it.

    Raises:
        UsageError: no data set of the config has a ``data_root``, or they lie in several folders of
            which none is the parent of all others.
    """
    roots = {dataset.get('data_root') or '' for dataset, _ in data_sets(cfg)} - {''}
    roots = sorted({old.rstrip('/') for old in roots}, key=lambda old: (len(old), old))
    if not roots:
        raise UsageError('--data-root: no data set of this config has a data_root to be replaced')
    parent = roots[0]
    if not all(f'{other}/'.startswith(f'{parent}/') for other in roots):
        raise UsageError(
            f'--data-root: the data sets of this config lie in {", ".join(roots)}, and one folder '
            'cannot take the place of all of them: give each its own data_root in the config, or '
            'with --cfg-options, e.g. val_dataloader.dataset.data_root=FOLDER'
        )

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                new = moved(value[key])
                # Classes of a pure-Python config stay as they are, or it could not be dumped.
                if new is not value[key]:
                    value[key] = new
        elif isinstance(value, list | tuple):
            return type(value)(moved(item) for item in value)
        elif isinstance(value, str) and f'{value}/'.startswith(f'{parent}/'):
            return os.path.join(root, value.removeprefix(parent).lstrip('/'))
        return value

    for key in cfg:
        if key == 'data_root' or key.endswith(('_dataloader', '_evaluator')):
            cfg[key] = moved(cfg[key])


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Look for the files of a config's data sets in the layouts of COCO and of ImageNet.

    Other layouts are left to their data sets, and storage that is not a local folder (``s3://`` and
    the like, or ``backend_args``) to MMEngine.

    Args:
        cfg: a config with ``<split>_dataloader`` entries.
        splits: of 'train', 'val' and 'test'.

    Raises:
        MissingDataError: a file or folder is missing; says which, what was expected and what to do.
        DataError: an annotation file lists an image outside of the data set.
    """
    for dataset, kind in data_sets(cfg, splits):
        if is_remote(dataset):
            continue
        if kind is ImageNet:
            _check_imagenet(dataset)
        elif reads_like_coco(kind):
            _check_coco(dataset)


def data_sets(
    cfg: Config, splits: tuple[str, ...] = ('train', 'val', 'test')
) -> Iterator[tuple[ConfigDict, Any]]:
    """Every data set of the dataloaders, those inside wrappers included.

    Args:
        cfg: a config with ``<split>_dataloader`` entries.
        splits: of 'train', 'val' and 'test'.

    Yields:
        The settings of a data set, and its class; None for a type that nothing is registered as.
    """

    def leaves(value: Any) -> Iterator[ConfigDict]:
        if isinstance(value, dict):
            if 'ann_file' in value or 'data_root' in value:
                yield value
            else:
                for item in value.values():
                    yield from leaves(item)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from leaves(item)

    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in leaves(loader.get('dataset') if loader else None):
            scope = dataset.get('_scope_', cfg.get('default_scope'))
            yield dataset, component(dataset.get('type'), DATASETS, scope)


def is_remote(dataset: ConfigDict) -> bool:
    """Whether a data set's files are in other storage than local folders."""
    paths = (dataset.get('data_root'), dataset.get('ann_file'))
    return bool(dataset.get('backend_args')) or any('://' in str(path) for path in paths)


def reads_like_coco(kind: Any) -> bool:
    """Whether a class of data sets reads its annotation file in the same way as `CocoDataset`.

    Subclasses that override the reading (of panoptic annotations, LVIS, Objects365, ...) accept
    other files than `CocoDataset` does.
    """
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and all(
            getattr(kind, name) is getattr(CocoDataset, name)
            for name in (
                '__init__',
                'COCOAPI',
                'ANN_ID_UNIQUE',
                'load_data_list',
                'parse_data_info',
            )
        )
    )


def _check_coco(dataset: ConfigDict) -> None:
    root, annotations = dataset.get('data_root') or '', dataset.get('ann_file')
    prefixes = dataset.get('data_prefix') or {}
    folder = prefixes.get('img')
    if not annotations or folder is None:
        return
    annotations, folder = (os.path.join(root, path) for path in (annotations, folder))
    if not os.path.isfile(annotations):
        raise _missing(root, f'there is no {annotations}', COCO)
    if not os.path.isdir(folder):
        raise _missing(root, f'there is no {folder}', COCO)
    if prefixes.get('seg'):
        maps = os.path.join(root, prefixes.seg)
        if not os.path.isdir(maps):
            raise _missing(root, f'there is no {maps} (segmentation maps)', COCO)
    if not os.path.getsize(annotations):
        raise _missing(root, f'{annotations} is empty', COCO)
    listed = _file_names(annotations)
    # Symbolic links are not followed: the user may have put images elsewhere.
    home = os.path.abspath(root if root and _is_within(folder, root) else folder)
    for name in listed:
        if (os.path.isabs(name) or '..' in name) and not _is_within(
            os.path.join(folder, name), home
        ):
            raise DataError(
                f'{annotations} lists the image {name}, which is outside of {home}: expected are '
                f'paths within it; correct the file_name'
            )
    present = set(os.listdir(folder))
    absent = [
        name
        for name in listed
        if name not in present and not os.path.isfile(os.path.join(folder, name))
    ]
    if absent:
        raise _missing(
            root,
            f'{folder} lacks {absent[0]} and has {len(listed) - len(absent)} of the '
            f'{len(listed)} images that {annotations} lists',
            COCO,
        )


def _check_imagenet(dataset: ConfigDict) -> None:
    """Check the folders of the classes. No file lists the images: a missing one is not noticed."""
    root, split = dataset.get('data_root') or '', dataset.get('split')
    if not split or any(key in dataset for key in ('data_prefix', 'ann_file', 'metainfo')):
        return
    folder = os.path.join(root, split)
    if not os.path.isdir(folder):
        raise _missing(root, f'there is no {folder}', IMAGENET)
    if os.path.isfile(os.path.join(root, 'meta', f'{split}.txt')):
        return
    with os.scandir(folder) as entries:
        classes = sum(entry.is_dir() for entry in entries)
    if classes != 1000:
        raise _missing(root, f'{folder} has {classes} folders of classes, not 1000', IMAGENET)


def _is_within(path: str, folder: str) -> bool:
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.commonpath((path, folder)) == folder


def _missing(root: str, problem: str, expected: str) -> MissingDataError:
    return MissingDataError(
        f'The data set in {root or os.curdir} is missing or incomplete: {problem}; expected is '
        f'{expected}.'
    )


def _file_names(annotations: str) -> list[str]:
    # A search over the raw bytes: parsing COCO's 450 MB of JSON takes ten times as long, and the
    # data set will do it anyway.
    with (
        open(annotations, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        names = _FILE_NAME.findall(text)
    try:
        return [json.loads(name) for name in names]
    except ValueError as error:
        raise DataError(f'{annotations} is no JSON: a file_name is broken ({error})') from error

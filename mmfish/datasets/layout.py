"""Where a config's data set lies, and whether it is all there."""

import json
import mmap
import os
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict

from mmfish.errors import MissingDataError

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("[^"]+")')


def set_data_root(cfg: Config, root: str | os.PathLike) -> None:
    """Point every data set and evaluator of a config to another folder of the same layout.

    Args:
        cfg: changed in place.
        root: takes the place of each ``data_root``, also at the beginning of other paths.
    """
    root = os.path.join(root, '')
    old_roots = {dataset.data_root for dataset in _datasets(cfg) if dataset.get('data_root')}

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                value[key] = moved(value[key])
        elif isinstance(value, list | tuple):
            return type(value)(moved(item) for item in value)
        elif isinstance(value, str):
            for old in old_roots:
                if value == old or value.startswith(f'{old.rstrip("/")}/'):
                    return root + value.removeprefix(old).lstrip('/')
        return value

    for key in cfg:
        if key == 'data_root' or key.endswith(('_dataloader', '_evaluator')):
            cfg[key] = moved(cfg[key])


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Look for the annotation files and images of a config's data sets of COCO's layout.

    Remote storage (``s3://`` and the like) is left to MMEngine.

    Args:
        cfg: a config with ``<split>_dataloader`` entries.
        splits: of 'train', 'val' and 'test'.

    Raises:
        MissingDataError: a file or folder is missing; says which, what was expected and what to do.
    """
    for dataset in _datasets(cfg, splits):
        root, annotations = dataset.get('data_root') or '', dataset.get('ann_file')
        prefixes = dataset.get('data_prefix', {})
        folder = prefixes.get('img')
        # Panoptic annotations list the files of two folders.
        panoptic = 'Panoptic' in str(dataset.get('type'))
        if not annotations or folder is None or panoptic or '://' in root + annotations:
            continue
        annotations, folder = (os.path.join(root, path) for path in (annotations, folder))
        if not os.path.isfile(annotations):
            raise _missing(root, f'there is no {annotations}')
        if not os.path.isdir(folder):
            raise _missing(root, f'there is no {folder}')
        if prefixes.get('seg') and not os.path.isdir(os.path.join(root, prefixes.seg)):
            raise _missing(
                root, f'there is no {os.path.join(root, prefixes.seg)} (segmentation maps)'
            )
        if not os.path.getsize(annotations):
            raise _missing(root, f'{annotations} is empty')
        listed = _file_names(annotations)
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
            )


def _missing(root: str, problem: str) -> MissingDataError:
    return MissingDataError(
        f'The data set in {root or os.curdir} is missing or incomplete: {problem}; expected is the '
        'layout of COCO 2017 (annotations/instances_{train,val}2017.json, train2017/, val2017/, '
        'from https://cocodataset.org): put it there or name its folder with --data-root, or see '
        'FishNet at work without any download with `make demo`.'
    )


def _datasets(cfg: Config, splits: tuple[str, ...] = ('train', 'val', 'test')) -> Iterator:
    """Every data set of the dataloaders, those inside wrappers included."""

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
        if loader:
            yield from leaves(loader.get('dataset'))


def _file_names(annotations: str) -> list[str]:
    # A search over the raw bytes: parsing COCO's 450 MB of JSON takes ten times as long, and the
    # data set will do it anyway.
    with (
        open(annotations, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        return [json.loads(name) for name in _FILE_NAME.findall(text)]

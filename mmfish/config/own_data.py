"""A data set of one's own into anybody's config: `own_data`."""

import copy
import difflib
import inspect
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet.datasets.transforms
from mmdet.datasets import BaseDetDataset, CocoDataset, CocoPanopticDataset, ReIDDataset
from mmdet.datasets.base_video_dataset import BaseVideoDataset
from mmdet.evaluation import CocoMetric
from mmdet.models.roi_heads.bbox_heads import MultiInstanceBBoxHead
from mmdet.visualization import get_palette
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DATASETS, METRICS, TRANSFORMS, Registry

from mmfish.atomic import write_atomically
from mmfish.config.levels import model_registry
from mmfish.config.paths import dicts, read_config
from mmfish.datasets.annotations import category_names
from mmfish.datasets.find import Split, agree_on_classes, find_splits, without_mask
from mmfish.datasets.layouts import data_sets, is_remote, reads_like_coco, set_data_root
from mmfish.errors import UsageError
from mmfish.registry import component
from mmfish.stack import first_rank, folder

LOADERS = ('train', 'val', 'test')
# Parts of a model whose num_classes is no number of classes of the data set. RPNs tell objects from
# background, and semantic heads beside detectors have the classes of segmentation maps.
OTHER_COUNTS = ('backbone', 'neck', 'rpn_head', 'semantic_head', 'reid', 'language_model')
# Options of a data set that are kept when its class is replaced.
KEPT = ('pipeline', 'filter_cfg', 'test_mode', 'serialize_data', 'max_refetch', 'return_classes')
# What CocoMetric measures of detectors.
MEASURES = ('bbox', 'segm', 'proposal', 'proposal_fast')
# How the names of MMDetection's configs change from one for masks to one for boxes, and from one
# for segmentation maps to one for masks.
TO_BOXES = (
    ('cascade-mask-rcnn', 'cascade-rcnn'),
    ('mask-rcnn', 'faster-rcnn'),
    ('mask_rcnn', 'faster_rcnn'),
    ('ms-rcnn', 'faster-rcnn'),
    ('rtmdet-ins', 'rtmdet'),
    ('detectors_htc', 'detectors_cascade-rcnn'),
    ('htc-without-semantic', 'cascade-rcnn'),
    ('queryinst', 'sparse-rcnn'),
)
TO_MASKS = (
    ('coco-panoptic', 'coco'),
    ('maskformer', 'mask2former'),
    ('panoptic-fpn', 'mask-rcnn'),
    ('htc', 'htc-without-semantic'),
)


def own_data(
    cfg: Config | str | os.PathLike,
    root: str | os.PathLike,
    *,
    val_fraction: float | str | None = None,
    training: bool = True,
) -> Config:
    """Fit a config of MMDetection to the data set in a folder: its files and its classes.

    If the folder has the layout and the classes of the config's own data set, as COCO's folder for
    a config for COCO, only the paths change. Otherwise annotations in COCO's format are looked for
    (`mmfish.datasets.find.find_splits` says where). Then the data sets of the config become these
    files, those that were concatenated become one, metrics become COCO's, and all heads get the
    number of classes. Pipelines, samplers, schedule, and the rest of the model stay. Test data are
    the folder's test split if it has one with annotations, or else its validation split.

    Annotation files are written only where those of the folder cannot be used as they are: for
    ``val_fraction``, for categories in another order, or one whose name occurs twice. They go into
    ``own_data/`` of the work directory, never into the folder.

    Args:
        cfg: a config, its path, or ``mmdet::<path>``. It is not changed.
        root: the folder of the data set.
        val_fraction: for a folder with one annotation file: how many of the images are for
            validation, between 0 and 1. An image stays in its half when others are added.
        training: False for a folder to test with: any one split is enough.

    Returns:
        A new config.

    Raises:
        UsageError: the config cannot be trained on the folder's data: it needs masks, segmentation
            maps or videos, and there are none; or see `mmfish.datasets.find.find_splits`.
        MissingDataError: the folder, annotations or images are not there.
        DataError: an annotation file cannot be used.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else read_config(cfg)
    root = os.fspath(root)
    fraction = _fraction(val_fraction)
    found = list(data_sets(cfg))
    boxes = any(isinstance(kind, type) and issubclass(kind, BaseDetDataset) for _, kind in found)
    remote = '://' in root or any(is_remote(dataset) for dataset, _ in found)
    own = fraction is None and _has_own_layout(cfg, root)
    if not own and not remote:
        _refuse_other_tasks(cfg)
    if not boxes or remote or own:
        if fraction is not None:
            raise UsageError(
                '--val-fraction divides one annotation file of boxes in a local folder, and '
                f'{_name(cfg)} reads other data: leave it out'
            )
        set_data_root(cfg, root)
        return cfg
    cfg.pop('expected_metrics', None)  # of the config's own data set
    splits = find_splits(root, fraction, training=training)
    classes = agree_on_classes(splits)
    masks = _check_tasks(cfg, splits, root)
    _check_heads(cfg, len(classes))
    for split in splits.values():
        if split.changed:
            _write(split, cfg, root, fraction)
    for name in LOADERS:
        if cfg.get(f'{name}_dataloader'):
            split = next(splits[role] for role in (name, 'val', *splits) if role in splits)
            _set_loader(cfg, name, split, classes, root)
            if cfg.get(f'{name}_evaluator'):
                _set_evaluator(cfg, name, split, masks)
    if 'data_root' in cfg:
        cfg.data_root = root
    with model_registry(cfg) as registry:
        _set_counts(cfg.get('model'), len(classes), registry)
    return cfg


def _fraction(value: float | str | None) -> float | None:
    try:
        fraction = None if value is None else float(value)
    except ValueError:
        fraction = 0
    if fraction is not None and not 0 < fraction < 1:
        raise UsageError(
            f'--val-fraction {value} is no share of the images: expected is a number between 0 and '
            '1, such as 0.2'
        )
    return fraction


def _has_own_layout(cfg: Config, root: str) -> bool:
    """Whether a folder has the files of a config's own data set, with its classes."""
    moved = copy.deepcopy(cfg)
    try:
        set_data_root(moved, root)
    except UsageError:
        return False
    own = []
    for dataset, kind in data_sets(moved, ('train', 'val')):
        file = os.path.join(dataset.get('data_root') or '', str(dataset.get('ann_file') or ''))
        if not os.path.isfile(file):
            continue
        own.append(
            not (reads_like_coco(kind) or kind is CocoPanopticDataset)
            or _has_classes(file, dataset, kind)
        )
    return bool(own) and all(own)


def _has_classes(file: str, dataset: ConfigDict, kind: type[CocoDataset]) -> bool:
    """Whether a file has the classes of a data set, as far as its categories can be read.

    Those that the config itself names may be some of the file's. The checks before a run say what
    is wrong with a file that cannot be read.
    """
    categories = category_names(file)
    if categories is None:
        return True
    chosen = (dataset.get('metainfo') or {}).get('classes')
    if chosen:
        return set(chosen) <= set(categories)
    known = list(kind.METAINFO.get('classes', ()))
    # Panoptic files list things and stuff in an order of their own.
    return known == categories or (kind is CocoPanopticDataset and set(known) == set(categories))


def _refuse_other_tasks(cfg: Config) -> None:
    tasks = {BaseVideoDataset: 'videos', ReIDDataset: 'persons to be told apart'}
    for _, kind in data_sets(cfg):
        for other, what in tasks.items():
            if isinstance(kind, type) and issubclass(kind, other):
                raise UsageError(
                    f'--data-root: {_name(cfg)} is for {what} ({kind.__name__}), which the folder '
                    "does not have as that data set does: take a detector's config for images"
                )


def _check_tasks(cfg: Config, splits: Mapping[str, Split], root: str) -> bool:
    """Check that a data set has what a config learns.

    Returns:
        Whether the config learns masks.

    Raises:
        UsageError: it learns masks, segmentation maps or from proposals, which the data set does
            not have.
    """
    stock = mmdet.datasets.transforms
    found = [dataset for dataset, _ in data_sets(cfg, ('train',))]
    loading = []
    for step in dicts([dataset.get('pipeline') for dataset in found]):
        kind = component(step.get('type'), TRANSFORMS, cfg.get('default_scope'))
        if isinstance(kind, type) and issubclass(kind, stock.LoadAnnotations):
            loading.append((step, kind))
        if isinstance(kind, type) and issubclass(kind, stock.LoadProposals):
            raise UsageError(
                f'{_name(cfg)} learns from proposals in a file, which --data-root does not have: '
                'take a config that makes its own, such as '
                'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
            )
    panoptic = any(issubclass(kind, stock.LoadPanopticAnnotations) for _, kind in loading)
    maps = any(step.get('with_seg') for step, _ in loading)
    if panoptic or (maps and not all(_maps(dataset, root) for dataset in found)):
        raise UsageError(
            f'{_name(cfg)} learns segmentation maps, and --data-root finds '
            f'{"boxes and masks of objects alone" if panoptic else "none"}: take a config for '
            'objects alone, such as '
            + _suggestion(cfg, TO_MASKS, 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
        )
    masks = any(step.get('with_mask') for step, _ in loading)
    for split in splits.values() if masks else ():
        lacking, number = without_mask(split), len(split.content['annotations'])
        if lacking:
            objects = 'objects' if lacking == number else f'{lacking} of {number} objects'
            raise UsageError(
                f'{_name(cfg)} learns masks, and the {objects} of {split.file} have boxes only: '
                'take a config for boxes, such as '
                + _suggestion(cfg, TO_BOXES, 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
            )
    return masks


def _check_heads(cfg: Config, classes: int) -> None:
    with model_registry(cfg) as registry:
        kinds = [component(part.get('type'), registry) for part in dicts(cfg.get('model'))]
    if classes > 1 and MultiInstanceBBoxHead in kinds:
        raise UsageError(
            f'{_name(cfg)} has a MultiInstanceBBoxHead, which works for one class only, and '
            f'--data-root finds {classes}: take another detector'
        )


def _suggestion(cfg: Config, names: Sequence[tuple[str, str]], default: str) -> str:
    """The config of another kind that is most like a given one.

    Args:
        cfg: the given one.
        names: pairs of what a name has, and what the name of one of the other kind begins with.
        default: where there is none beside it.
    """
    path = Path(cfg.filename or '')
    for old, new in names:
        if old not in path.name:
            continue
        wanted = path.name.replace(old, new)
        for family in (path.parent, path.parent.parent / new.replace('-', '_')):
            others = {
                file.name: file
                for file in family.glob('*.py')
                if new in file.name and 'panoptic' not in file.name and file.name != path.name
            }
            for found in difflib.get_close_matches(wanted, others, n=1, cutoff=0.3):
                shipped = folder('mmdet') / '.mim' / 'configs'
                if others[found].is_relative_to(shipped):
                    return f'mmdet::{others[found].relative_to(shipped).as_posix()}'
                return str(others[found])
    return default


def _write(split: Split, cfg: Config, root: str, fraction: float | None) -> None:
    """Write a split's annotations into the work directory, where its ``file`` then is.

    Every rank writes the same text, and never leaves half of it for another to read. The share for
    validation is in the name, so that a test with another one changes no training's files.

    Raises:
        UsageError: it cannot be written, or would lie in the user's folder.
    """
    default = f'work_dirs/{Path(cfg.filename).stem}' if cfg.filename else 'work_dirs'
    name = split.role if fraction is None else f'{split.role}_{fraction:g}'
    path = Path(cfg.get('work_dir') or default, 'own_data', f'{name}.json').absolute()
    if path.is_relative_to(Path(root).absolute()):
        raise UsageError(
            '--data-root: annotations have to be rewritten, and the work directory lies in '
            f'{root}, which stays as it is: name another one with --work-dir'
        )
    text = json.dumps(split.content)
    try:
        if not path.is_file() or path.read_text(encoding='utf-8') != text:
            write_atomically(path, text.encode())
    except OSError as error:
        raise UsageError(
            f'{path} cannot be written ({error.strerror or error}): make room there, or give '
            'another folder with --work-dir'
        ) from error
    split.file = str(path)


def _set_loader(cfg: Config, name: str, split: Split, classes: Sequence[str], root: str) -> None:
    """Let a data loader of a config read a split."""
    loader = cfg[f'{name}_dataloader']
    sampler = loader.get('sampler') or {}
    if 'dataset_size' in sampler:  # of each of the data sets that become one
        loader['sampler'] = dict(type='mmdet.DefaultSampler', shuffle=True)
    # It mixes images with and without annotations from several data sets.
    several = 'source_ratio' in sampler
    language = any('language_model' in node for node in dicts(cfg.get('model')))

    def set_data(node: ConfigDict) -> ConfigDict:
        if 'datasets' in node:
            if not several:
                return set_data(node['datasets'][0])
            node['datasets'] = [set_data(each) for each in node['datasets']]
        elif 'dataset' in node:
            node['dataset'] = set_data(node['dataset'])
        else:
            _set_files(cfg, node, split, classes, root)
            if name != 'train':
                node['test_mode'] = True
            if language:
                _tell_classes(cfg, node)
        return node

    loader['dataset'] = set_data(loader['dataset'])
    if several:
        _log(
            f'{_name(cfg)} trains on images without annotations too, and those of {split.images} '
            f'take their place: name others with --cfg-options {name}_dataloader.dataset.datasets.'
            '1.dataset.ann_file=... and the like'
        )


def _set_files(
    cfg: Config, dataset: ConfigDict, split: Split, classes: Sequence[str], root: str
) -> None:
    scope = dataset.get('_scope_', cfg.get('default_scope'))
    kind = component(dataset.get('type'), DATASETS, scope)
    # A user's own class that reads COCO's format stays.
    if kind is not CocoDataset and (not reads_like_coco(kind) or _is_stock(kind)):
        for key in dataset.keys() - set(KEPT):
            del dataset[key]
        dataset['type'] = 'mmdet.CocoDataset'
    for key in ('indices', 'caption_prompt', 'proposal_file'):
        dataset.pop(key, None)
    for step in dicts(dataset.get('pipeline')):
        step.pop('backend_args', None)  # of the storage that the config's own images are in
    dataset['data_root'] = root
    dataset['ann_file'] = _within(split.file, root)
    maps = _maps(dataset, root)
    dataset['data_prefix'] = dict(img=_within(split.images, root))
    if maps:
        dataset['data_prefix']['seg'] = maps
    dataset['metainfo'] = dict(classes=tuple(classes))
    if len(classes) > len(CocoDataset.METAINFO['palette']):
        colours = get_palette('random', len(classes))
        dataset['metainfo']['palette'] = [tuple(map(int, colour)) for colour in colours]


def _maps(dataset: ConfigDict, root: str) -> str | None:
    """Where a data set of a config has segmentation maps, if a folder has them there too."""
    maps = (dataset.get('data_prefix') or {}).get('seg')
    return maps if maps and os.path.isdir(os.path.join(root, maps)) else None


def _within(path: str, root: str) -> str:
    """A path as MMDetection wants it, relative to ``data_root`` if it lies in it."""
    path, home = (Path(os.path.abspath(each)) for each in (path, root))
    if not path.is_relative_to(home):
        return str(path)
    relative = path.relative_to(home).as_posix()
    return '' if relative == os.curdir else relative


def _tell_classes(cfg: Config, dataset: ConfigDict) -> None:
    """Give the names of the classes to a model that reads them."""
    dataset['return_classes'] = True
    steps = dataset.get('pipeline') or []
    # It chooses classes from the texts that ODVGDataset gives to every image.
    dataset['pipeline'] = [s for s in steps if s.get('type') != 'RandomSamplingNegPos']
    for step in dataset['pipeline']:
        if 'meta_keys' in step:
            lacking = [key for key in ('text', 'custom_entities') if key not in step['meta_keys']]
            step['meta_keys'] = (*step['meta_keys'], *lacking)


def _set_evaluator(cfg: Config, name: str, split: Split, masks: bool) -> None:
    """Measure a split as COCO does, with the options that the config has for that.

    A user's own metrics, and those that only write predictions, stay.
    """
    old = cfg[f'{name}_evaluator']
    parts = old if isinstance(old, list | tuple) else [old]
    parts = [metric for part in parts for metric in part.get('metrics', [part])]
    metric, others, measures = ConfigDict(type='mmdet.CocoMetric'), [], []
    for part in parts:
        kind = component(part.get('type'), METRICS, cfg.get('default_scope'))
        if not _is_stock(kind) or 'Dump' in kind.__name__:
            others.append(part)
            continue
        ours = kind.__module__.startswith('mmfish.')
        if (kind is CocoMetric or ours) and 'metrics' not in old:
            metric = part
        asked = part.get('metric') or []
        measures += [asked] if isinstance(asked, str) else list(asked)
    if len(others) < len(parts):
        known = [each for each in dict.fromkeys(measures) if each in MEASURES]
        known = known or (['bbox', 'segm'] if masks else ['bbox'])
        if 'segm' in known and without_mask(split):
            known = [each for each in known if each != 'segm'] or ['bbox']
        for key in ('format_only', 'outfile_prefix', 'sort_categories', 'eval_mode'):
            metric.pop(key, None)
        metric['ann_file'] = split.file
        metric['metric'] = known if len(known) > 1 else known[0]
        others.insert(0, metric)
    cfg[f'{name}_evaluator'] = others if len(others) > 1 else others[0]


def _set_counts(model: Any, classes: int, registry: Registry) -> None:
    """Give the number of classes to every head and loss of a model; changed in place."""
    for node in list(_counting(model)):
        kind = component(node.get('type'), registry)
        old = None
        if 'num_things_classes' in node:
            old = node['num_things_classes'] + node.get('num_stuff_classes', 0)
            node['num_things_classes'] = classes
            if 'num_stuff_classes' in node:
                node['num_stuff_classes'] = 0
        elif 'num_classes' in node:
            old = node['num_classes']
            # Models that read the names of classes compare boxes with each word of a text.
            if old != (node.get('contrastive_cfg') or {}).get('max_text_len'):
                node['num_classes'] = classes
        elif _takes(kind, 'num_classes'):
            node['num_classes'] = classes
        for loss in node.values():
            weights = loss.get('class_weight') if isinstance(loss, dict) else None
            if isinstance(weights, list | tuple) and old in (len(weights), len(weights) - 1):
                if len(set(weights[:old])) > 1:
                    _log(f'{loss["type"]}: its class_weight of {old} classes is replaced by 1.0')
                weight = weights[0] if len(set(weights[:old])) == 1 else 1.0
                loss['class_weight'] = [weight] * classes + list(weights[old:])
        # Other teachers, which teach boxes alone, have a config of their own.
        if 'teacher_bbox_head' in node and node.pop('teacher_ckpt', None):
            _log(
                f'{node["type"]}: its teacher_ckpt is of other classes and is left out: name the '
                'checkpoint of a teacher for yours with --cfg-options model.teacher_ckpt=FILE'
            )


def _counting(part: Any) -> Iterator[dict]:
    """Every dict of a model that may count the classes of its data set."""
    if isinstance(part, dict):
        yield part
        part = [value for key, value in part.items() if key not in OTHER_COUNTS]
    if isinstance(part, list | tuple):
        for item in part:
            yield from _counting(item)


def _takes(kind: Any, option: str) -> bool:
    """Whether a class, or one that it derives from, has an option."""
    return isinstance(kind, type) and any(
        option in inspect.signature(base.__init__).parameters for base in kind.__mro__
    )


def _is_stock(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith(('mmdet.', 'mmfish.'))


def _name(cfg: Config) -> str:
    return cfg.filename or 'the config'


def _log(message: str) -> None:
    if first_rank():
        print_log(message, 'current', logging.WARNING)

"""Predictions of a trained detector for images, folders and videos of one's own."""

import ast
import inspect
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mmcv
import mmcv.transforms
import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.structures.mask import mask2bbox
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmengine.utils import get_object_from_string, import_modules_from_strings
from rich.progress import track

from mmfish.checkpoints.loading import (
    check_fit,
    load_from_file,
    plain_data_only,
    read_state_dict,
    without_module,
)
from mmfish.config.paths import dicts, read_config
from mmfish.config.validation import validate_config
from mmfish.engine.fault_tolerance.saving import newest_checkpoint
from mmfish.engine.prepare import use_own_transforms
from mmfish.errors import CheckpointError, ConfigError, UsageError
from mmfish.inference.coco import Predictions
from mmfish.inference.files import Summary, check_inputs, predict_files
from mmfish.inference.inputs import Decoder
from mmfish.models import FishNet
from mmfish.registry import component

# The packages whose classes a config in a checkpoint may name by their paths.
PACKAGES = ('mmfish', 'mmdet', 'mmpretrain', 'mmcv', 'mmengine', 'torch', 'torchvision')


def run_predict(
    model: str | os.PathLike,
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    config: str | os.PathLike | None = None,
    score_thr: float = 0.3,
    device: str | None = None,
    batch_size: int = 1,
) -> Summary:
    """Predict images with a trained detector, draw what was found, and write it down.

    What cannot be read is left out, named and counted. Prints progress, and a summary.

    Args:
        model: as for `find_model`.
        inputs: images, videos, folders (searched with all folders below them, without hidden
            files) and patterns such as ``'photos/*.jpg'``.
        out: folder for the pictures and ``predictions.json``: a list in COCO's results format.
            ``image_id`` counts the images from 1, ``category_id`` the classes, and ``file_name``
            and ``category_name`` stand beside them. It may not hold inputs, nor lie in a folder of
            inputs.
        config: as for `find_model`.
        score_thr: objects with a lower score are left out. That of the model itself, ``score_thr``
            in its ``test_cfg``, comes before.
        device: such as 'cpu' or 'cuda:1'. Defaults to a GPU if there is one.
        batch_size: how many images are predicted at once.

    Returns:
        What came of the inputs.

    Raises:
        CheckpointError: there is no checkpoint, or it is not that of the config's model.
        ConfigError: there is no config, or it is not for this version, or not of a detector.
        DataError: an input is not there, there is no image, or none could be read.
        UsageError: a number is out of its range, the device is not there, or ``out`` is a file,
            among the inputs, or cannot be written to.
    """
    files, others = check_inputs(inputs, out, score_thr, batch_size)
    check_device(device)
    cfg, checkpoint = find_model(model, config)
    cfg = prepare_predicting(cfg)
    check_predicting(cfg)
    inferencer = build_inferencer(cfg, checkpoint, device)
    meta = inferencer.model.dataset_meta
    palette = meta.get('palette')
    return predict_files(
        partial(predict_images, inferencer),
        files,
        out,
        meta.get('classes', ()),
        others=others,
        palette=None if isinstance(palette, str) else palette,
        score_thr=score_thr,
        batch_size=batch_size,
        decode=decoder_of(cfg),
        track=partial(track, description='Predicting'),
    )


def prepare_predicting(cfg: Config) -> Config:
    """Make every change to a config that predicting needs.

    Args:
        cfg: from `find_model`; is not changed.

    Returns:
        The config for MMDetection's ``DetInferencer``.
    """
    # The inferencer reads names, not the classes themselves that a pure-Python config may have.
    cfg = Config(cfg.to_dict())
    cfg.setdefault('default_scope', 'mmdet')
    use_own_transforms(cfg)
    loading = loading_of(cfg)
    if loading is not None:
        # Images are decoded before they come to the inferencer. It replaces this step, which
        # OpenMMLab's MMDetection knows by its plain name only.
        loading['type'] = 'LoadImageFromFile'
    # The inferencer needs a visualizer, and the config's own may write files elsewhere.
    cfg.visualizer = dict(type='mmdet.DetLocalVisualizer')
    return cfg


def check_predicting(cfg: Config) -> None:
    """Check that a config is of a detector that can predict images.

    Args:
        cfg: from `prepare_predicting`.

    Raises:
        ConfigError: it is not.
    """
    validate_config(cfg)
    kind = component(cfg.model.get('type'), MODELS, cfg.default_scope)
    if not inspect.isclass(kind) or not issubclass(kind, BaseDetector):
        raise ConfigError(
            f'the model of the config is a {cfg.model.get("type")}, and predict draws what '
            "detectors find: for a classifier use MMPretrain's ImageClassificationInferencer"
        )
    if loading_of(cfg) is None:
        raise ConfigError(
            'the config has no test_dataloader=dict(dataset=dict(pipeline=[...])) with '
            'LoadImageFromFile in it, which says how images are prepared for the model: give a '
            'config that has, with --config CONFIG'
        )


def check_device(device: str | None) -> None:
    """Check that a device is there.

    Args:
        device: such as 'cpu' or 'cuda:1'; None for any.

    Raises:
        UsageError: it is not, or there is no such device.
    """
    try:
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition('\n')[0].partition('. ')[0]
        raise UsageError(
            f'--device {device} cannot be used ({reason}): give cpu, or leave it out for a GPU if '
            'there is one'
        ) from error


def build_inferencer(cfg: Config, checkpoint: str, device: str | None = None) -> DetInferencer:
    """Build MMDetection's inferencer, reading the checkpoint without executing anything in it.

    Args:
        cfg: from `prepare_predicting`.
        checkpoint: its path or URL.
        device: as for `run_predict`.

    Raises:
        CheckpointError: the checkpoint is not that of the config's model. For models without
            FishNet that means a tensor of another shape.
    """
    with plain_data_only(), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'palette does not exist')
        inferencer = DetInferencer(
            cfg, checkpoint, device=device, scope=cfg.default_scope, show_progress=False
        )
    model = inferencer.model
    weights = without_module(read_state_dict(checkpoint))
    if any(isinstance(module, FishNet) for module in model.modules()):
        check_fit(model, weights, checkpoint, 'the model of the config')
    for key, tensor in model.state_dict().items():
        if key in weights and weights[key].shape != tensor.shape:
            raise CheckpointError(
                f'{checkpoint} does not fit the model of the config: {key} has the shape '
                f'{tuple(weights[key].shape)} instead of {tuple(tensor.shape)}; give the config '
                'and the weights of the same model'
            )
    return inferencer


def loading_of(cfg: Config) -> dict | None:
    """The step of a config's test pipeline that reads images; None if there is none.

    Args:
        cfg: from `prepare_predicting`.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    for step in dataset.get('pipeline') or []:
        kind = component(step.get('type'), TRANSFORMS, cfg.default_scope)
        if inspect.isclass(kind) and issubclass(kind, mmcv.transforms.LoadImageFromFile):
            return step
    return None


def decoder_of(cfg: Config) -> Decoder:
    """What decodes images as the config's test pipeline does.

    Args:
        cfg: from `prepare_predicting`.
    """
    loading = loading_of(cfg)
    flag, backend = loading.get('color_type', 'color'), loading.get('imdecode_backend', 'cv2')
    return partial(mmcv.imfrombytes, flag=flag, backend=backend)


def predict_images(inferencer: DetInferencer, images: list[np.ndarray]) -> list[Predictions]:
    """Predict images at once.

    Args:
        inferencer: from `build_inferencer`.
        images: as `decoder_of` gives them.

    Returns:
        The predictions of each.

    Raises:
        UsageError: the model finds no single objects.
    """
    with DefaultScope.overwrite_default_scope(inferencer.cfg.default_scope):
        found = inferencer(
            images, batch_size=len(images), return_datasamples=True, no_save_vis=True
        )
    return [_predictions(sample) for sample in found['predictions']]


def _predictions(sample: DetDataSample) -> Predictions:
    if 'pred_instances' not in sample:
        raise UsageError(
            'the model gives a class to each pixel instead of finding objects (panoptic '
            "segmentation): use MMDetection's own DetInferencer for it"
        )
    objects = sample.pred_instances.cpu()
    masks = objects.get('masks')
    boxes = objects.get('bboxes')
    if masks is not None and (boxes is None or not boxes.any()):
        boxes = mask2bbox(masks)  # of models such as SOLO, which give masks alone
    return Predictions(
        boxes.numpy(),
        objects.scores.numpy(),
        objects.labels.numpy(),
        None if masks is None else masks.numpy(),
    )


def find_model(
    model: str | os.PathLike, config: str | os.PathLike | None = None
) -> tuple[Config, str]:
    """Find the config and the checkpoint of a trained model.

    Args:
        model: the work directory of a run, or the path or URL of a checkpoint. Of a work directory
            the newest ``best_*.pth`` is taken, or else the checkpoint that was written last.
        config: path of the config, or ``package::path``. Defaults to the config in the checkpoint,
            where MMEngine's runner keeps it. That is read as plain data: no code in it is executed,
            and its ``type`` may not name just anything in Python; but the modules that its
            ``custom_imports`` names are imported.

    Returns:
        The config, and the path or URL of the checkpoint.

    Raises:
        CheckpointError: there is no such file or folder, no checkpoint in the folder, or no config
            in the checkpoint; or the file is no checkpoint.
        ConfigError: ``config`` is not there or is no config, or the one in the checkpoint cannot
            be used.
    """
    checkpoint = _find_checkpoint(os.fspath(model))
    cfg = read_config(config) if config else _config_in(load_from_file(checkpoint), checkpoint)
    if 'model' not in cfg:
        raise ConfigError(f'{config or checkpoint} has a config without a model: give another one')
    return cfg, checkpoint


def _find_checkpoint(model: str) -> str:
    path = Path(model).expanduser()
    if '://' in model or path.is_file():
        if path.suffix in ('.py', '.json', '.yaml', '.yml'):
            raise CheckpointError(
                f'{model} is a config: give the checkpoint or the folder of the run as MODEL, and '
                f'the config with --config {model}'
            )
        return model
    if not path.is_dir():
        raise CheckpointError(
            f'there is no {model}: expected the folder of a run, or the file of a checkpoint'
        )
    text = newest_checkpoint(path)
    newest = Path(text) if text else None
    files = list(path.glob('*.pth'))
    if newest and not files and newest.parent.is_dir():
        files = list(newest.parent.glob('*.pth'))
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    best = [file for file in files if file.name.startswith('best_')]
    last = [file for file in files if newest and file.name == newest.name]
    candidates = [*best, *last, *files]
    if not candidates:
        raise CheckpointError(
            f'{model} has no checkpoint in it: expected the folder of a run that has saved one '
            '(best_*.pth, epoch_*.pth, iter_*.pth), or the file of a checkpoint'
        )
    return str(candidates[0])


def _config_in(content: Any, source: str) -> Config:
    """The config that MMEngine's runner has written into a checkpoint.

    Args:
        content: of the checkpoint.
        source: its name, for messages.

    Raises:
        CheckpointError: there is none.
        ConfigError: it is more than names and plain values.
    """
    text = None
    for keys in (('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg')):
        found = content
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        text = text or found
    if not isinstance(text, str):
        raise CheckpointError(
            f'{source} has no config in it: give the one it was trained with, with --config CONFIG'
        )
    try:
        cfg = Config(_plain_settings(text))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f'the config in {source} is not plain data ({error}): give the one it was trained '
            'with, with --config CONFIG'
        ) from error
    if cfg.get('custom_imports'):
        try:
            import_modules_from_strings(**cfg.custom_imports)
        except (ImportError, TypeError) as error:
            raise ConfigError(
                f'the config in {source} needs a module that cannot be imported ({error}): install '
                'it, or add its folder to PYTHONPATH'
            ) from error
    _check_types(cfg, source)
    return cfg


def _check_types(cfg: Config, source: str) -> None:
    """Check that what would be built from a config in a checkpoint are components of models.

    MMEngine calls whatever a ``type`` names by its path, ``os.system`` too.

    Args:
        cfg: the config.
        source: the checkpoint's name, for the message.

    Raises:
        ConfigError: something is named that is no class of the packages that models are made of.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    for part in dicts([cfg.get('model'), dataset]):
        kind = part.get('type')
        # A name of a registry, such as mmdet.RetinaNet, is no path.
        found = get_object_from_string(kind) if isinstance(kind, str) and '.' in kind else None
        if found is not None and not (
            inspect.isclass(found) and found.__module__.partition('.')[0] in PACKAGES
        ):
            raise ConfigError(
                f'the config in {source} names {kind}, which is no component of '
                f'{", ".join(PACKAGES)}: if you trust it, give it with --config CONFIG'
            )


def _plain_settings(text: str) -> dict[str, Any]:
    """The settings in the text of a config, without executing it.

    Args:
        text: what MMEngine's ``Config.pretty_text`` gives: assignments of literals and of
            ``dict(...)``.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: it is more than such assignments.
    """
    settings = {}
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            raise ValueError(f'line {statement.lineno} does something else than set a value')
        value = _DictCallsAsDisplays().visit(statement.value)
        settings[statement.targets[0].id] = ast.literal_eval(value)
    return settings


class _DictCallsAsDisplays(ast.NodeTransformer):
    """Turns ``dict(a=1)`` and ``dict({'a': 1})`` into ``{'a': 1}``, as `ast.literal_eval` wants."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Turn one call; others stay, and `ast.literal_eval` refuses them."""
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if ast.unparse(node.func) != 'dict' or None in names:
            return node
        if node.args:
            return node.args[0] if len(node.args) == 1 and not names else node
        return ast.Dict([ast.Constant(name) for name in names], [k.value for k in node.keywords])

"""Writes a model as one ONNX file, and checks the file against the model."""

import copy
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.utils import get_test_pipeline_cfg
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer, get_model
from torch import nn

from mmfish.atomic import write_atomically
from mmfish.checkpoints.loading import local_file, plain_data_only
from mmfish.deploy.graphs import REFUSED, BackboneGraph, DetectorGraph, graph_of
from mmfish.deploy.runner import TRANSFORMS, Detector, paste_mask, prepare, read_image
from mmfish.engine.predict import find_model
from mmfish.errors import UsageError
from mmfish.inference.inputs import find_files
from mmfish.models.fusion import split_up_sampling
from mmfish.version import __version__

try:
    import onnx
    import onnxruntime
    from onnx import numpy_helper
except ImportError:
    onnx = None

# The first that has RoIAlign with aligned=True is 16.
OPSET = 17
# Height and width of the pictures of the comparison. Nothing is to be found in the first.
SIZES = ((300, 300), (240, 320), (375, 250))
# How far the file may be from the model: boxes in pixels of the image, scores, and masks.
TOLERANCE = dict(boxes=0.01, scores=1e-4, masks=1e-3)
HALF_TOLERANCE = dict(boxes=2.0, scores=0.02, masks=0.1)
QUANTIZED = ('Conv', 'ConvTranspose', 'Gemm')
# Transforms that leave the image as it is.
NOT_OF_IMAGES = (
    'LoadImageFromFile',
    'LoadImageFromNDArray',
    'InferencerLoader',
    'LoadAnnotations',
    'PackDetInputs',
    'PackInputs',
)


def export(
    model: str | os.PathLike | nn.Module,
    file: str | os.PathLike,
    *,
    half: bool = False,
    int8: str | os.PathLike | Iterable[str | os.PathLike] | None = None,
) -> Path:
    """Write a model as one ONNX file that needs no custom operators, and check it.

    A detector or classifier takes ``image``, (1, H, W, 3), uint8, RGB, of any height and width.
    Normalising and padding are inside; resizing is not: the metadata say how it is done, and
    `mmfish.deploy.Detector` does it. A detector gives ``boxes`` (n, 4) in pixels of that image,
    ``scores`` (n,), ``labels`` (n,), and ``masks`` (n, 28, 28) if it has a mask head; a classifier
    gives ``scores`` (1, classes). A backbone alone takes ``image``, (1, C, H, W), float32, as it is
    normalised for it, and gives its levels.

    Before the file gets its name, it is run in ONNX Runtime beside the model, from three images
    to boxes and pasted masks: in one of them nothing is found, in the others the score threshold is
    low enough for objects to be found by any model.

    Args:
        model: a run's folder or a checkpoint, as `mmfish.engine.predict.find_model` takes it; or a
            model that is built: a detector with its ``cfg``, as `mmdet.apis.init_detector` makes
            it, a classifier of `mmpretrain.get_model`, or a backbone.
        file: the ``.onnx`` file to write. A file of that name is replaced.
        half: keep the weights as float16, for half the size. They are cast to float32 as the file
            is loaded: most CPUs cannot compute in float16, and sums of many products lose more
            in it than weights do. The comparison allows for 2 pixels, 0.02 in scores and 0.1 in
            masks then.
        int8: images, folders or patterns, as for ``mmfish predict``. Convolutions and matrix
            products compute in 8-bit integers, in ranges that NNCF measures on up to 300 of these
            images. The comparison is of the file before that: measure what it costs.

    Returns:
        The path of the file.

    Raises:
        UsageError: onnx or onnxruntime is not installed, or nncf for ``int8``; the model has a
            component that cannot be exported, or is a backbone, with ``int8``; there are only
            videos in ``int8``; or the file disagrees with the model; then it is not left behind.
        DataError: an image of ``int8`` is not there.
        CheckpointError: the checkpoint cannot be read.
        ConfigError: its config cannot be used.
    """
    if onnx is None:
        raise UsageError(
            "exporting needs the packages onnx and onnxruntime: `pip install 'mmfish[export]'`"
        )
    if int8 is not None:
        if half:
            raise UsageError('give half or int8, not both: int8 weights are smaller than half ones')
        if find_spec('nncf') is None:
            raise UsageError('int8 needs the package nncf: `pip install nncf`')
        samples = [file.path for file in find_files(int8)[0] if not file.is_video][:300]
        if not samples:
            raise UsageError('int8 needs images to measure ranges on, and got videos alone')
    file = Path(file)
    if file.suffix != '.onnx':
        raise UsageError(f'expected the name of a file that ends in .onnx, got {file}')
    metadata = dict(mmfish_version=__version__, half=half, int8=int8 is not None)
    if isinstance(model, nn.Module):
        model = copy.deepcopy(model).cpu()
    else:
        model, checkpoint = _load(model)
        metadata['weights_sha256'] = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    model.eval()  # not in a chain: for some of MMDetection's backbones it returns None
    graph = graph_of(model.requires_grad_(False)).eval()
    metadata['outputs'] = graph.outputs
    if not isinstance(graph, BackboneGraph):
        metadata.update(_description(model, graph))
    elif int8 is not None:
        raise UsageError('int8 needs a detector or a classifier, which say how images are prepared')

    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix='.export-', dir=file.parent) as folder:
        unchecked = Path(folder, 'model.onnx')
        # A copy is traced: what the file is compared with is the model as it was.
        divisor = 1 if isinstance(graph, BackboneGraph) else graph.normalize.divisor
        traced = split_up_sampling(copy.deepcopy(graph), divisor)
        proto = _trace(traced, _input(metadata, graph, SIZES[0]), unchecked)
        onnx.helper.set_model_props(proto, {k: json.dumps(v) for k, v in metadata.items()})
        if half:
            _halve_weights(proto)
        onnx.checker.check_model(proto)
        onnx.save(proto, unchecked)
        for number, size in enumerate(SIZES):
            _compare(graph, unchecked, size, empty=number == 0, half=half)
        if int8 is not None:
            _quantize(unchecked, samples)
        write_atomically(file, unchecked.read_bytes())
    return file


def _load(model: str | os.PathLike) -> tuple[nn.Module, Path]:
    cfg, checkpoint = find_model(model)
    scope = cfg.get('default_scope') or 'mmdet'
    with plain_data_only(), DefaultScope.overwrite_default_scope(scope):
        if scope == 'mmpretrain':
            return get_model(cfg, checkpoint, device='cpu'), local_file(checkpoint)
        return init_detector(cfg, checkpoint, device='cpu'), local_file(checkpoint)


def _description(model: BaseModel, graph: nn.Module) -> dict[str, Any]:
    """What a file says of a model, beside its outputs."""
    cfg = getattr(model, 'cfg', None) or getattr(model, '_config', None)
    if cfg is None:
        raise UsageError(
            f'{type(model).__name__} was built without a config, which says how images are '
            'resized: build it with mmdet.apis.init_detector or mmpretrain.get_model'
        )
    meta = getattr(model, 'dataset_meta', None) or getattr(model, '_dataset_meta', {})
    pipeline = []
    for step in get_test_pipeline_cfg(cfg):
        kind = step['type'] if isinstance(step['type'], str) else step['type'].__name__
        kind = kind.rpartition('.')[2]
        if kind in TRANSFORMS:
            pipeline.append({**step, 'type': kind})
        elif kind not in NOT_OF_IMAGES:
            raise UsageError(
                f'the transform {kind} of the test pipeline {REFUSED} expected are '
                f'{", ".join(TRANSFORMS)}'
            )
    description = dict(classes=meta.get('classes'), pipeline=pipeline)
    if isinstance(meta.get('palette'), list | tuple):  # or the word 'random'
        description['palette'] = meta['palette'][: len(meta.get('classes') or ())]
    if isinstance(graph, DetectorGraph):
        description['score_thr'] = graph.score_thr.item()
        if 'masks' in graph.outputs:
            description['mask_thr'] = graph.test_cfg.mask_thr_binary
    return description


def _input(metadata: dict[str, Any], graph: nn.Module, size: tuple[int, int]) -> np.ndarray:
    if 'pipeline' in metadata:
        return prepare(_picture(size), json.loads(json.dumps(metadata['pipeline'])))[0][None]
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, graph.in_channels, *size)).astype(np.float32)


def _trace(graph: nn.Module, image: np.ndarray, file: Path) -> Any:
    height = 1 if image.dtype == np.uint8 else 2
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            # The exporter over torch.export cannot follow MMDetection's code yet.
            torch.onnx.export(
                graph,
                (torch.from_numpy(image),),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=['image'],
                output_names=list(graph.outputs),
                dynamic_axes={'image': {height: 'height', height + 1: 'width'}},
            )
    except torch.onnx.errors.OnnxExporterError as error:
        line = str(error).strip().partition('\n')[0]
        raise UsageError(f'an operator of the model {REFUSED} {line}') from error
    proto = onnx.load(file)
    custom = sorted({node.op_type for node in proto.graph.node if node.domain})
    if custom:
        raise UsageError(
            f'the operator {custom[0]} {REFUSED} expected are those of ONNX opset {OPSET}'
        )
    return proto


def _halve_weights(proto: Any) -> None:
    """Keep weights of two and more dimensions as float16, each with a cast to float32."""
    casts = []
    for tensor in proto.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or np.abs(weights).max() > 65504:
            continue
        name = f'{tensor.name}_half'
        casts.append(
            onnx.helper.make_node('Cast', [name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        tensor.CopyFrom(numpy_helper.from_array(weights.astype(np.float16), name))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantize(file: Path, images: list[Path]) -> None:
    """Change a file such that its layers compute in 8-bit integers."""
    import nncf  # it takes seconds, and prints

    nncf.set_log_level(logging.ERROR)
    pipeline = Detector(file).metadata['pipeline']
    data = nncf.Dataset(
        images, lambda path: dict(image=prepare(read_image(path), pipeline)[0][None])
    )
    proto = onnx.load(file)
    # Sums, boxes and scores stay in float32.
    others = [node.name for node in proto.graph.node if node.op_type not in QUANTIZED]
    quantized = nncf.quantize(
        proto,
        data,
        subset_size=len(images),
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )
    onnx.helper.set_model_props(quantized, {p.key: p.value for p in proto.metadata_props})
    onnx.save(quantized, file)


def _picture(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3), uint8: soft spots of every colour and of sizes in which objects are."""
    rng = np.random.default_rng(size)
    layers = [rng.uniform(0, 255, (cells, cells, 3)) for cells in (4, 9, 20)]
    layers = [cv2.resize(layer, size[::-1], interpolation=cv2.INTER_CUBIC) for layer in layers]
    return np.clip(2.2 * np.mean(layers, 0) - 150, 0, 255).astype(np.uint8)


def _compare(graph: nn.Module, file: Path, size: tuple[int, int], empty: bool, half: bool) -> None:
    """Raise if a file disagrees with its model on a picture."""
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    model = graph.model
    if isinstance(graph, BackboneGraph):
        image = _input({}, graph, size)
        session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
        with torch.no_grad():
            pairs = zip(
                graph(torch.from_numpy(image)), session.run(None, dict(image=image)), strict=True
            )
        far = np.max([np.abs(a.numpy() - b).max() / (np.abs(b).max() or 1) for a, b in pairs])
        close = far <= tolerance['scores']  # not so if it is NaN
        problem = not close and f'a level is off by {far:.1e} of its largest value'
    elif isinstance(graph, DetectorGraph):
        found = compare_detections(graph, file, size, empty=empty, tolerance=tolerance)
        problem = found.alone and f'{found.alone} objects are not the same, {found.both} are'
    else:
        scores = Detector(file)(_picture(size))['scores']
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            inferencer = ImageClassificationInferencer(model)
            data = next(iter(inferencer.preprocess([_picture(size)[..., ::-1].copy()])))
        far = np.abs(scores - inferencer.forward(data)[0].pred_score.numpy()).max()
        close = far <= tolerance['scores']
        problem = not close and f'a score is off by {far:.1e}'
    if problem:
        raise UsageError(
            f'the exported file disagrees with the model on an image of {size[0]}x{size[1]}: '
            f'{problem}; no file was written, please report this'
        )


def _gap(scores: np.ndarray) -> float:
    """A threshold that 5 to 20 of falling scores exceed, as far from the nearest as there is."""
    around = [(a - b, (a + b) / 2) for a, b in pairwise(scores[:21].tolist())]
    return float(np.float32(max(around[4:] or around or [(0, 0)])[1]))


@dataclass
class Agreement:
    """How far the detections of a file are from those of its model, on one image.

    Attributes:
        both: how many objects both have found.
        alone: how many one of the two has found and the other has not, or elsewhere.
        boxes: the largest difference of a coordinate among those of both, in pixels of the image.
        scores: likewise of a score.
        masks: likewise the most pixels in which two masks differ; 0 without masks.
    """

    both: int = 0
    alone: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    masks: int = 0


def compare_detections(
    graph: DetectorGraph,
    file: Path,
    size: tuple[int, int],
    *,
    empty: bool = False,
    runtime: str = 'onnxruntime',
    tolerance: dict[str, float] = TOLERANCE,
) -> Agreement:
    """Compare a file with its model, from a picture to pasted masks.

    Args:
        graph: of the model; its score threshold is changed.
        file: what was exported.
        size: height and width of the picture, which is made for it.
        empty: with the highest threshold, so that nothing is found.
        runtime: of `Detector`.
        tolerance: how far two objects may be apart to be the same, as `TOLERANCE`.
    """
    picture = _picture(size)

    def predict(threshold: float):
        graph.test_cfg.score_thr = threshold
        with DefaultScope.overwrite_default_scope('mmdet'):
            return inference_detector(graph.model, picture[..., ::-1].copy()).pred_instances.numpy()

    threshold = 1.0 if empty else _gap(predict(0).scores)
    expected = predict(threshold)
    proto = onnx.load(file)
    (tensor,) = (t for t in proto.graph.initializer if t.name == 'score_thr')
    tensor.CopyFrom(numpy_helper.from_array(np.float32(threshold), 'score_thr'))
    changed = file.with_name('threshold.onnx')
    onnx.save(proto, changed)
    found = Detector(changed, runtime).raw(picture)
    least = graph.test_cfg.get('mask_thr_binary')
    result = Agreement()

    def same(i: int, j: int) -> bool:
        score = abs(expected.scores[i] - found['scores'][j])
        box = np.abs(expected.bboxes[i] - found['boxes'][j]).max()
        close = score <= tolerance['scores'] and box <= tolerance['boxes']  # not so if one is NaN
        if expected.labels[i] != found['labels'][j] or not close:
            return False
        pixels = 0
        if 'masks' in found:
            mask = paste_mask(found['masks'][j], found['boxes'][j], picture.shape[:2])
            inner, outer = (mask >= least + tolerance['masks'], mask >= least - tolerance['masks'])
            if not ((inner <= expected.masks[i]).all() and (expected.masks[i] <= outer).all()):
                return False
            pixels = int(((mask >= least) != expected.masks[i]).sum())
        result.both += 1
        result.boxes = max(result.boxes, float(box))
        result.scores = max(result.scores, float(score))
        result.masks = max(result.masks, pixels)
        return True

    left = list(range(len(found['scores'])))
    alone = []
    for i, score in enumerate(expected.scores):
        partner = next((j for j in left if same(i, j)), None)
        if partner is None:
            alone.append(score)
        else:
            left.remove(partner)
    alone += [found['scores'][j] for j in left]
    # Near the threshold one of the two may find an object, and the other not.
    result.alone = sum(score > threshold + tolerance['scores'] for score in alone)
    return result

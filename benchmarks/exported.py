"""AP of a detector beside that of its exported files, in each runtime and precision."""

import contextlib
import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import mmcv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from demo.markdown import markdown_table
from mmfish.deploy import Detector, export
from mmfish.engine.predict import (
    build_inferencer,
    find_model,
    predict_images,
    prepare_predicting,
)
from mmfish.inference.coco import Predictions, coco_results

# Runtime and precision of computation, of which each file is run in all.
RUNS = {
    'ONNX Runtime': ('onnxruntime', 'f32'),
    'OpenVINO': ('openvino', 'f32'),
    'OpenVINO, bf16': ('openvino', 'bf16'),
}


def compare_exported(model: str | Path, data_root: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Export a detector with each kind of weights, and measure all of them.

    Those of int8 take the package nncf, and are fitted to the first 300 training images.

    Args:
        model: a run's folder or a checkpoint of a detector with masks.
        data_root: its data set in COCO's layout, with categories numbered from 1.

    Returns:
        AP of boxes and of masks on the validation images, by weights and runtime: first those of
        the checkpoint in PyTorch.
    """
    cfg, checkpoint = find_model(model)
    inferencer = build_inferencer(prepare_predicting(cfg), checkpoint, 'cpu')
    in_pytorch = partial(_in_pytorch, inferencer)
    measured = {('float32', 'PyTorch'): average_precision(in_pytorch, data_root)}
    with TemporaryDirectory() as folder:
        kinds = dict(float32={}, float16=dict(half=True))
        if find_spec('nncf'):
            kinds['int8'] = dict(int8=data_root / 'train2017')
        for kind, options in kinds.items():
            file = export(model, Path(folder, f'{kind}.onnx'), **options)
            weights = f'{kind}, {file.stat().st_size / 1e6:.1f} MB'
            for name, (runtime, precision) in RUNS.items():
                detector = Detector(file, runtime, precision=precision)
                measured[weights, name] = average_precision(partial(in_file, detector), data_root)
    return measured


def average_precision(predict: Callable[[Path], Predictions], data_root: Path) -> dict[str, float]:
    """COCO AP on the validation images of a data set.

    Args:
        predict: takes the path of an image, gives what is found in it.
        data_root: the data set in COCO's layout, with categories numbered from 1.

    Returns:
        AP over IoU 0.50 to 0.95 of boxes, 'bbox', and of masks, 'segm'.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO(str(data_root / 'annotations' / 'instances_val2017.json'))
        classes = [coco.cats[i]['name'] for i in sorted(coco.cats)]
        results = []
        for number, image in coco.imgs.items():
            found = predict(data_root / 'val2017' / image['file_name'])
            results += coco_results(found, number, image['file_name'], classes)
        found = coco.loadRes(results)
        ap = {}
        for kind in ('bbox', 'segm'):
            evaluation = COCOeval(coco, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            ap[kind] = float(evaluation.stats[0])
    return ap


def in_file(detector: Detector, path: Path) -> Predictions:
    """What an exported detector finds in an image."""
    found = detector(path)
    return Predictions(found['boxes'], found['scores'], found['labels'], found['masks'])


def ap_table(measured: dict[tuple[str, str], dict[str, float]]) -> str:
    """What `compare_exported` returns, in Markdown."""
    rows = [[*names, f'{ap["bbox"]:.4f}', f'{ap["segm"]:.4f}'] for names, ap in measured.items()]
    return markdown_table(['weights', 'runtime', 'box AP', 'mask AP'], rows, numbers=2)


def _in_pytorch(inferencer, path: Path) -> Predictions:
    return predict_images(inferencer, [mmcv.imread(path)])[0]

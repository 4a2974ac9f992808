"""Pictures of a training: predictions beside the ground truth, and curves of loss and AP."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from pycocotools.coco import COCO

from demo.logs import read_logs
from mmfish.errors import MissingDataError

PAIRS, COLUMNS = 12, 3
SCORE_THRESHOLD = 0.5  # predictions with a lower one are not drawn
METRICS = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}


def prediction_grid(ann_file: Path, image_folder: Path, result_file: Path, out: Path) -> Path:
    """Draw images of a COCO data set in pairs: ground truth on the left, predictions on the right.

    Args:
        ann_file: the data set's annotations.
        image_folder: of its images.
        result_file: predictions with masks in COCO's result format, as MMDetection's `CocoMetric`
            writes them to ``*.segm.json``.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO(str(ann_file))
    predictions = json.loads(result_file.read_text(encoding='utf-8'))
    ids = sorted(coco.imgs)
    chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(PAIRS, len(ids))).astype(int)]
    rows = -(-len(chosen) // COLUMNS)
    # At this size an image of 128 pixels is shown threefold.
    figure = Figure(figsize=(5.5 * COLUMNS, 2.8 * rows), dpi=150, layout='constrained')
    axes = iter(figure.subplots(rows, 2 * COLUMNS, squeeze=False).flat)
    for image_id in chosen:
        image = imread(image_folder / coco.imgs[image_id]['file_name'])
        found = [
            prediction
            for prediction in predictions
            if prediction['image_id'] == image_id and prediction['score'] >= SCORE_THRESHOLD
        ]
        _draw_objects(next(axes), 'ground truth', coco, image, coco.imgToAnns[image_id])
        _draw_objects(next(axes), 'predictions', coco, image, found)
    for unused in axes:
        unused.axis('off')
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def training_curves(work_dir: Path, out: Path) -> Path:
    """Draw the losses and the AP of a training against its iterations.

    Args:
        work_dir: where `tools/train.py` wrote its logs; those of a resumed training are one curve.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.

    Raises:
        MissingDataError: there is no log with a training iteration.
    """
    training, evaluations = read_logs(work_dir)
    if not training:
        raise MissingDataError(
            f'there is no log of a training in {work_dir}: expected */vis_data/scalars.json, which '
            'tools/train.py writes at every interval of its LoggerHook'
        )
    figure = Figure(figsize=(11, 4.2), dpi=150, layout='constrained')
    losses, aps = figure.subplots(1, 2)
    for name in next(iter(training.values())):
        if name.startswith('loss'):
            values = [scalars.get(name, np.nan) for scalars in training.values()]
            losses.plot(list(training), values, label=name.replace('_', ' '))
    for metric, label in METRICS.items():
        points = [(i, scalars[metric]) for i, scalars in evaluations.items() if metric in scalars]
        if points:
            options = dict(marker='o', clip_on=False, label=f'{label} {points[-1][1]:.3f}')
            aps.plot(*zip(*points, strict=True), **options)
    losses.set(title='loss', ylim=(0, None))
    aps.set(title='COCO AP (IoU 0.50:0.95)', ylim=(0, 1))
    for axes in (losses, aps):
        axes.set(xlabel='iteration', xlim=(0, max(training)))
        axes.grid(color='#e4e4e4')
        if axes.lines:
            axes.legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _draw_objects(
    axes: Axes, title: str, coco: COCO, image: np.ndarray, objects: list[dict[str, Any]]
) -> None:
    """Draw an image, (H, W, 3) in 0 to 1, with masks, boxes, classes and scores of objects."""
    height, width = image.shape[:2]
    category_ids = sorted(coco.cats)
    # The best prediction comes last, on top of the others.
    for item in sorted(objects, key=lambda item: item.get('score', 1.0)):
        colour = colormaps['tab10'](category_ids.index(item['category_id']) % 10)
        mask = coco.annToMask(item)
        image = np.where(mask[..., None], (image + colour[:3]) / 2, image)
        # A light edge tells a mask from an object that happens to have its class's colour.
        if mask.any():
            frame = np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1)
            axes.contour(*frame, levels=[0.5], colors='white', linewidths=0.8)
        x, y, w, h = item['bbox']
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=1.4)
        )
        text = coco.cats[item['category_id']]['name']
        if 'score' in item:
            text += f' {item["score"]:.2f}'
        # Above the box, or inside it where the image ends.
        above = y > 0.06 * height
        axes.text(
            min(x, 0.75 * width),
            max(y, 0),
            text,
            color='white',
            fontsize=6.5,
            verticalalignment='bottom' if above else 'top',
            bbox=dict(facecolor=colour, edgecolor='none', alpha=0.85, pad=0.8),
        )
    axes.imshow(image, interpolation='bicubic')
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_title(title, fontsize=9)
    axes.axis('off')

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

from benchmarks.logs import read_logs

INK = '#333333'
DPI = 150
METRICS = {'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}


def prediction_grid(
    ann_file: str | Path,
    image_folder: str | Path,
    result_file: str | Path,
    out: str | Path,
    count: int = 12,
    pairs_per_row: int = 3,
    score_threshold: float = 0.5,
) -> Path:
    """Draw images of a COCO data set in pairs: ground truth on the left, predictions on the right.

    Args:
        ann_file: The data set's annotations.
        image_folder: The folder of its images.
        result_file: Predictions in COCO's result format, as MMDetection's ``CocoMetric`` writes
            them with ``outfile_prefix``: ``*.segm.json``, or ``*.bbox.json`` for boxes alone.
        out: The PNG to write. Its folder is made where there is none.
        count: Number of images, taken at even distances through the data set.
        pairs_per_row: Pairs side by side.
        score_threshold: Predictions with a lower score are left out.

    Returns:
        ``out`` as a path.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The predictions are of images that the annotations do not have.
    """
    for path, what in ((ann_file, 'annotation file'), (result_file, 'result file')):
        if not Path(path).is_file():
            raise FileNotFoundError(f'There is no {what} {path}.')
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress
        coco = COCO(str(ann_file))
    predictions = json.loads(Path(result_file).read_text(encoding='utf-8'))
    unknown = {prediction['image_id'] for prediction in predictions} - coco.imgs.keys()
    if unknown:
        raise ValueError(
            f'{result_file} has predictions for image {min(unknown)}, which is not in {ann_file}: '
            'give the annotation file that the predictions were evaluated on.'
        )

    ids = sorted(coco.imgs)
    count = min(count, len(ids))
    chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, count).astype(int)]
    columns = min(pairs_per_row, count)
    rows = -(-count // columns)
    # In inches. 2.6 at 150 dots an inch show 128 pixels threefold.
    side, inner, outer, header = 2.6, 0.04, 0.2, 0.3
    width = outer + columns * (2 * side + inner + outer)
    height = header + rows * (side + outer)
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor='white')
    for number, image_id in enumerate(chosen):
        row, column = divmod(number, columns)
        image = imread(Path(image_folder, coco.imgs[image_id]['file_name']))
        found = [
            prediction
            for prediction in predictions
            if prediction['image_id'] == image_id and prediction['score'] >= score_threshold
        ]
        for half, objects in enumerate((coco.imgToAnns[image_id], found)):
            left = outer + column * (2 * side + inner + outer) + half * (side + inner)
            bottom = height - header - row * (side + outer) - side
            axes = figure.add_axes(
                (left / width, bottom / height, side / width, side / height), anchor='N'
            )
            _draw_objects(axes, coco, image, objects)
            if row == 0:
                axes.set_title(('ground truth', 'predictions')[half], color=INK, fontsize=11, pad=5)
    return _save(figure, out)


def training_curves(work_dir: str | Path, out: str | Path) -> Path:
    """Draw the losses and the AP of a training against its iterations.

    Args:
        work_dir: The training's work folder, with MMEngine's ``*/vis_data/scalars.json`` in it. A
            resumed training has several of them, which become one curve.
        out: The PNG to write. Its folder is made where there is none.

    Returns:
        ``out`` as a path.

    Raises:
        FileNotFoundError: The work folder has no log.
        ValueError: The log has no training iteration in it.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(
            f'There is no training log in {work_dir}: */vis_data/scalars.json was looked for, '
            'which tools/train.py writes there.'
        )
    training, evaluations = read_logs(logs)
    if not training:
        raise ValueError(
            f'The log {logs[-1]} has no training iteration: train for longer than the interval '
            'of its LoggerHook.'
        )

    figure = Figure(figsize=(11, 4.2), dpi=DPI, facecolor='white', layout='constrained')
    loss_axes, ap_axes = figure.subplots(1, 2)
    _draw_losses(loss_axes, training)
    _draw_metrics(ap_axes, evaluations)
    for axes in (loss_axes, ap_axes):
        axes.set_xlabel('iteration', color=INK)
        axes.set_xlim(0, max(training))
        axes.grid(color='#e4e4e4', linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, length=0)
        axes.spines[['top', 'right', 'left']].set_visible(False)
        axes.spines['bottom'].set_color('#bbbbbb')
    return _save(figure, out)


def _draw_objects(axes: Axes, coco: COCO, image: np.ndarray, objects: list[dict[str, Any]]) -> None:
    """Draw an image with the masks, boxes, class names and scores of COCO objects on it."""
    image = image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    if image.dtype == np.uint8:  # matplotlib reads PNG as floats in 0 to 1, and JPEG as bytes
        image = image / 255
    height, width = image.shape[:2]
    category_ids = sorted(coco.cats)
    # The best prediction comes last, on top of the others.
    for item in sorted(objects, key=lambda item: item.get('score', 1.0)):
        colour = colormaps['tab10'](category_ids.index(item['category_id']) % 10)
        if 'segmentation' in item:
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
    axes.axis('off')


def _draw_losses(axes: Axes, training: dict[int, dict[str, float]]) -> None:
    """Draw the total loss and its parts: pale as logged, strong as a moving mean."""
    iterations = np.array(list(training))
    names = [name for name in next(iter(training.values())) if name.startswith('loss_')]
    colours = {'loss': INK} | {name: f'C{number}' for number, name in enumerate(names)}
    for name, colour in colours.items():
        values = np.array([scalars.get(name, np.nan) for scalars in training.values()])
        axes.plot(iterations, values, color=colour, alpha=0.2, linewidth=1)
        label = 'total' if name == 'loss' else name.removeprefix('loss_').replace('_', ' ')
        width = 2 if name == 'loss' else 1.4
        axes.plot(iterations, _moving_mean(values), color=colour, linewidth=width, label=label)
    axes.set_title('loss', color=INK, loc='left')
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def _draw_metrics(axes: Axes, evaluations: dict[int, dict[str, float]]) -> None:
    """Draw box and mask AP at each evaluation, with the last value written out."""
    axes.set_title('COCO AP (IoU 0.50:0.95)', color=INK, loc='left')
    axes.set_ylim(0, 1)
    for number, (metric, label) in enumerate(METRICS.items()):
        points = [(i, s[metric]) for i, s in evaluations.items() if metric in s]
        if points:
            iterations, values = zip(*points, strict=True)
            axes.plot(
                iterations,
                values,
                color=f'C{number}',
                marker='o',
                markersize=4,
                clip_on=False,
                label=f'{label} {values[-1]:.3f}',
            )
    if evaluations:
        axes.legend(frameon=False, labelcolor=INK, loc='lower right')
    else:
        axes.text(0.5, 0.5, 'no evaluation yet', transform=axes.transAxes, ha='center', color=INK)


def _moving_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a fifteenth of the curve, smaller at its ends."""
    reach = len(values) // 30
    window = np.ones(2 * reach + 1)
    inside = np.convolve(np.ones_like(values), window)[reach : reach + len(values)]
    return np.convolve(values, window)[reach : reach + len(values)] / inside


def _save(figure: Figure, out: str | Path) -> Path:
    """Write a figure, making its folder."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out

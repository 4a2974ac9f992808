"""The demonstration: a detector that learns on a CPU within minutes, with pictures."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from mmengine.runner.checkpoint import find_latest_checkpoint

from demo import CONFIGS
from demo.markdown import markdown_table
from demo.pictures import prediction_grid, training_curves
from demo.shapes import make_shapes
from mmfish.engine.run import load_config, run_test
from mmfish.errors import UsageError

CONFIG = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
TOOLS = Path(__file__).resolve().parents[1] / 'tools'
# One process keeps one core busy: RoIAlign, NMS and target assignment do not use more.
RANKS = 2
COLUMNS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75', 'AP_S': 'mAP_s', 'AP_M': 'mAP_m'}


def run_demo(data_root: Path, work_dir: Path) -> dict[str, float]:
    """Draw the data, train and evaluate a small Mask R-CNN, and make pictures of it.

    Args:
        data_root: folder for the shapes data set.
        work_dir: folder for logs, checkpoint, ``predictions.png`` and ``curves.png``.

    Returns:
        MMDetection's metrics of the trained detector on the validation images.

    Raises:
        UsageError: the training failed, or ``data_root`` holds something else.
    """
    make_shapes(data_root)
    training = subprocess.run(
        [
            *(TOOLS / 'dist_train.sh', CONFIG, str(RANKS)),
            *('--data-root', data_root, '--work-dir', work_dir),
        ],
        env={
            'OMP_NUM_THREADS': '1',
            **os.environ,
            'PYTHON': sys.executable,
            'PORT': str(_free_port()),
            'CUDA_VISIBLE_DEVICES': '',
        },
    )
    if training.returncode:
        raise UsageError('the training failed: its last lines above say why')
    cfg = load_config(
        CONFIG,
        work_dir=str(work_dir),
        data_root=str(data_root),
        cfg_options={'test_evaluator.outfile_prefix': str(work_dir / 'val')},
    )
    metrics = run_test(cfg, find_latest_checkpoint(work_dir))
    predictions = prediction_grid(
        data_root / 'annotations/instances_val2017.json',
        data_root / 'val2017',
        work_dir / 'val.segm.json',
        work_dir / 'predictions.png',
    )
    curves = training_curves(work_dir, work_dir / 'curves.png')
    print(f'\n{ap_table(metrics)}\n')
    print(f'Ground truth beside predictions: {predictions}')
    print(f'Loss and AP while it learned:    {curves}')
    return metrics


def ap_table(metrics: dict[str, float]) -> str:
    """COCO AP of boxes and masks in Markdown.

    Args:
        metrics: as `run_test` returns them.
    """
    rows = [
        [task, *(f'{metrics[f"coco/{kind}_{key}"]:.3f}' for key in COLUMNS.values())]
        for task, kind in (('boxes', 'bbox'), ('masks', 'segm'))
    ]
    return markdown_table(['', *COLUMNS], rows, numbers=len(COLUMNS))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]

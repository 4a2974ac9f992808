"""The pictures are made from real files, and show what is in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from demo.pictures import prediction_grid, training_curves
from demo.shapes import make_shapes


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=1, val=3)


@pytest.fixture
def grid(shapes: Path, tmp_path: Path) -> Any:
    """Draw the grid of the validation images for given results; returns its pixels."""

    def draw(results: list[dict[str, Any]], **options: Any) -> np.ndarray:
        result_file = tmp_path / 'results.segm.json'
        result_file.write_text(json.dumps(results))
        annotations = shapes / 'annotations' / 'instances_val2017.json'
        out = tmp_path / 'pictures' / 'grid.png'
        assert prediction_grid(annotations, shapes / 'val2017', result_file, out, **options) == out
        return imread(out)

    return draw


@pytest.fixture
def results(shapes: Path) -> list[dict[str, Any]]:
    """The ground truth as predictions with a score of 0.9."""
    document = json.loads((shapes / 'annotations' / 'instances_val2017.json').read_text())
    keys = ('image_id', 'category_id', 'bbox', 'segmentation')
    return [{key: item[key] for key in keys} | {'score': 0.9} for item in document['annotations']]


def write_log(work_dir: Path, run: str, lines: list[dict[str, float]]) -> Path:
    """Write lines as MMEngine's LocalVisBackend does."""
    log = work_dir / run / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return log


def train_line(iteration: int, loss: float) -> dict[str, float]:
    parts = dict(loss_rpn_cls=0.2 * loss, loss_cls=0.3 * loss, loss_mask=0.5 * loss)
    clock = dict(lr=1e-3, data_time=0.01, time=0.5, memory=0, acc=95.0)
    return dict(**clock, loss=loss, **parts, epoch=1, iter=iteration, step=iteration)


def val_line(step: int, ap: float) -> dict[str, float]:
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': ap, 'coco/segm_mAP': ap / 2, 'step': step}


def test_grid_shows_the_predictions(grid: Any, results: list[dict[str, Any]]) -> None:
    full, empty = (grid(shown, count=1) for shown in (results, []))
    assert full.shape == empty.shape
    assert full.std() > 0.05
    changed = np.nonzero((full != empty).any(axis=(0, 2)))[0]
    # The ground truth, on the left, is the same.
    assert changed.min() >= full.shape[1] // 2 - 1


def test_grid_leaves_out_low_scores(grid: Any, results: list[dict[str, Any]]) -> None:
    for result in results:
        result['score'] = 0.4
    empty = grid([], count=1)
    np.testing.assert_array_equal(grid(results, count=1), empty)
    assert (grid(results, count=1, score_threshold=0.3) != empty).any()


def test_grid_takes_boxes_without_masks(grid: Any, results: list[dict[str, Any]]) -> None:
    boxes = [{k: v for k, v in result.items() if k != 'segmentation'} for result in results]
    with_boxes = grid(boxes, count=1)
    assert (with_boxes != grid([], count=1)).any()
    assert (with_boxes != grid(results, count=1)).any()


def test_grid_has_a_row_for_each_few_images(grid: Any) -> None:
    heights = [grid([], count=count, pairs_per_row=2).shape[0] for count in (1, 2, 3, 100)]
    assert heights[0] == heights[1] < heights[2] == heights[3]


def test_grid_names_a_missing_file(shapes: Path, tmp_path: Path) -> None:
    annotations = shapes / 'annotations' / 'instances_val2017.json'
    missing = tmp_path / 'none.segm.json'
    with pytest.raises(FileNotFoundError, match=r'no result file .*none\.segm\.json'):
        prediction_grid(annotations, shapes / 'val2017', missing, tmp_path / 'grid.png')
    with pytest.raises(FileNotFoundError, match='no annotation file'):
        prediction_grid(missing, shapes / 'val2017', annotations, tmp_path / 'grid.png')


def test_grid_refuses_results_of_another_data_set(grid: Any, results: list[dict[str, Any]]) -> None:
    results[0]['image_id'] = 77
    with pytest.raises(ValueError, match='predictions for image 77'):
        grid(results)


def test_curves_show_loss_and_ap(tmp_path: Path) -> None:
    losses = [train_line(i, 3 / i) for i in range(10, 210, 10)]
    write_log(tmp_path / 'a', '1', [*losses[:10], val_line(1, 0.3), *losses[10:], val_line(2, 0.6)])
    write_log(tmp_path / 'b', '1', losses)
    with_ap = imread(training_curves(tmp_path / 'a', tmp_path / 'pictures' / 'a.png'))
    without = imread(training_curves(tmp_path / 'b', tmp_path / 'pictures' / 'b.png'))
    assert with_ap.std() > 0.05
    assert with_ap.shape == without.shape
    changed = np.nonzero((with_ap != without).any(axis=(0, 2)))[0]
    assert changed.min() > with_ap.shape[1] // 2 - 20  # the loss, on the left, is the same


def test_curves_place_evaluations_by_epoch_and_by_iteration_alike(tmp_path: Path) -> None:
    pictures = []
    for name, step in (('epochs', 1), ('iterations', 100)):
        lines = [train_line(i, 3 / i) for i in range(10, 110, 10)]
        write_log(tmp_path / name, '1', [*lines, val_line(step, 0.5), train_line(110, 0.1)])
        pictures.append(imread(training_curves(tmp_path / name, tmp_path / f'{name}.png')))
    np.testing.assert_array_equal(*pictures)


def test_curves_of_a_resumed_training_are_those_of_an_unbroken_one(tmp_path: Path) -> None:
    lines = [train_line(i, 300 / i) for i in range(10, 210, 10)]
    unbroken = [*lines[:10], val_line(1, 0.3), *lines[10:], val_line(2, 0.6)]
    write_log(tmp_path / 'unbroken', '20260101_000000', unbroken)
    # Killed in the middle of a line, 30 iterations past its last checkpoint at 100.
    killed = write_log(
        tmp_path / 'resumed',
        '20260101_000000',
        [*unbroken[:11], *[train_line(i, 99.0) for i in (110, 120, 130)]],
    )
    killed.write_text(killed.read_text() + '{"lr": 0.0')
    write_log(tmp_path / 'resumed', '20260102_000000', unbroken[11:])
    pictures = [
        imread(training_curves(tmp_path / name, tmp_path / f'{name}.png'))
        for name in ('unbroken', 'resumed')
    ]
    np.testing.assert_array_equal(*pictures)


def test_missing_log_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='no training log in'):
        training_curves(tmp_path, tmp_path / 'curves.png')


@pytest.mark.parametrize('lines', [[], [val_line(1, 0.5)]])
def test_log_without_training_is_one_clear_sentence(tmp_path: Path, lines: list) -> None:
    write_log(tmp_path, '1', lines)
    with pytest.raises(ValueError, match='has no training iteration'):
        training_curves(tmp_path, tmp_path / 'curves.png')

"""Pictures of predictions and of the training, made from real files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from demo.pictures import prediction_grid, training_curves
from demo.shapes import make_shapes
from mmfish.errors import MissingDataError


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('data') / 'shapes', train=1, val=3)


@pytest.fixture
def grid(shapes: Path, tmp_path: Path) -> Any:
    """Draw the grid of the validation images for given results; returns its pixels."""

    def draw(results: list[dict[str, Any]]) -> np.ndarray:
        result_file = tmp_path / 'results.segm.json'
        result_file.write_text(json.dumps(results))
        annotations = shapes / 'annotations' / 'instances_val2017.json'
        out = tmp_path / 'pictures' / 'grid.png'
        assert prediction_grid(annotations, shapes / 'val2017', result_file, out) == out
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


def halves(grid: np.ndarray, of: np.ndarray) -> tuple[bool, bool]:
    """Whether two grids differ left and right within their first pair."""
    left, right = np.array_split((grid != of)[:, : grid.shape[1] // 3].any(axis=(0, 2)), 2)
    return left.any(), right.any()


def test_grid_shows_the_predictions_on_the_right(grid: Any, results: list[dict]) -> None:
    full, empty = grid(results), grid([])
    assert full.std() > 0.05
    assert halves(full, empty) == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize('part', ['bbox', 'segmentation', 'score', 'category_id'])
def test_grid_shows_every_part_of_a_prediction(grid: Any, results: list[dict], part: str) -> None:
    before, first = grid(results), results[0]
    other = (
        next(item for item in results if item[part] != first[part] and item is not first)
        if (part != 'score')
        else dict(score=0.6)
    )
    first[part] = other[part]
    assert halves(grid(results), before) == (False, True)


@pytest.mark.slow
def test_grid_leaves_out_low_scores(grid: Any, results: list[dict[str, Any]]) -> None:
    for result in results:
        result['score'] = 0.4
    np.testing.assert_array_equal(grid(results), grid([]))


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


@pytest.mark.parametrize('lines', [[], [val_line(1, 0.5)]])
def test_a_log_without_training_is_one_clear_sentence(tmp_path: Path, lines: list) -> None:
    write_log(tmp_path, '1', lines)
    with pytest.raises(MissingDataError, match='there is no log of a training in'):
        training_curves(tmp_path, tmp_path / 'curves.png')

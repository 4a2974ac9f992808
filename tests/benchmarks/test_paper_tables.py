"""Runs of MMEngine are read, and shown as finished or not, beside the published numbers."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import benchmarks.report
from benchmarks.check_configs import experiments
from benchmarks.paper_tables import (
    FROM_RUNS,
    Cell,
    paper_tables,
    to_csv,
    to_markdown,
    write_paper_tables,
)
from benchmarks.published import load_published
from demo.logs import read_logs, read_run
from mmfish.config.paths import config_folder
from mmfish.engine.records import RECORD

MASK, BOX = 'mask_rcnn_fishnet150_fpn_coco', 'faster_rcnn_fishnet150_fpn_coco'


def test_every_run_of_ours_has_a_config():
    folders = config_folder(), Path(benchmarks.report.__file__).parent / 'configs'
    ours = {path.stem for folder in folders for path in experiments(folder)}
    runs = {
        run
        for table in load_published()['tables'].values()
        for row in table['rows']
        for run in row['runs']
    }
    assert runs <= ours


def coco(ap: float, kinds=('bbox', 'segm')) -> dict[str, float]:
    sizes = {'': 0, '_s': -0.2, '_m': 0.02, '_l': 0.1}
    metrics = {f'coco/{k}_mAP{size}': ap + more for k in kinds for size, more in sizes.items()}
    if 'segm' in kinds:
        metrics |= {f'coco/segm_mAP{s}_box_area': ap + sizes[s] + 0.01 for s in ('_s', '_m', '_l')}
    return metrics


def write_record(work_dir: Path, start: str, kind: str, **fields) -> None:
    """The fields of a record that say what a run has come to."""
    folder = work_dir / start
    folder.mkdir(parents=True)
    name = f'{work_dir.name}_{start}'
    common = dict(kind=kind, name=name, started=start, resumed_from=None, metrics={}, trained=None)
    (folder / RECORD).write_text(json.dumps(common | fields))


def trained(done: int, name: str, total: int | None = 3) -> dict:
    return dict(unit='epoch', done=done, of=total, name=name)


def write_training(work_dir: Path, start: str, epochs: int, metrics=coco, **fields) -> None:
    """What a training of some of 3 epochs leaves."""
    fields['metrics'] = metrics(0.3 + epochs / 1000) if metrics else {}
    fields.setdefault('initial_weights', {})
    name = f'{work_dir.name}_{start}'
    write_record(work_dir, start, 'training', trained=trained(epochs, name), **fields)


def write_test(work_dir: Path, start: str, epochs: int | None, metrics: dict, **fields) -> None:
    """What a test leaves, of a checkpoint of the run itself if it has epochs."""
    own = None if epochs is None else trained(epochs, f'{work_dir.name}_0', **fields)
    files = {f'x/{"fishnet150" if epochs is None else f"epoch_{epochs}"}.pth': None}
    write_record(work_dir, start, 'test', trained=own, metrics=metrics, checkpoint=files)


class Line(BaseModel):
    """The smallest model that MMEngine trains; it predicts the number of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.steps = nn.Parameter(torch.ones(1)), 0

    def forward(self, inputs, mode):
        self.steps += mode == 'loss'
        return dict(loss=self.weight.square().sum()) if mode == 'loss' else [self.steps]


class Score(BaseMetric):
    default_prefix = 'score'

    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return dict(value=results[0])


def train_for_iterations(work_dir: Path, iterations: int) -> None:
    """A real run, with an evaluation and a line in the log every second iteration."""
    data = dict(
        batch_size=1,
        dataset=[dict(inputs=torch.ones(1))] * 10,
        sampler=dict(type='InfiniteSampler'),
    )
    once = data | dict(sampler=dict(type='DefaultSampler', shuffle=False))
    Runner(
        Line(),
        str(work_dir),
        train_dataloader=data,
        val_dataloader=once,
        val_evaluator=[Score()],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=2),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2), checkpoint=None),
        custom_hooks=[dict(type='mmfish.RecordHook')],
        log_processor=dict(by_epoch=False),
        cfg=dict(train_cfg=dict(max_iters=iterations, val_interval=2)),
        default_scope='mmengine',
        experiment_name=work_dir.name,
    ).train()


class TestRuns:
    def test_a_missing_run(self, tmp_path):
        run = read_run(tmp_path / 'none')
        assert (run.name, run.state, run.metrics, run.finished) == ('none', 'not run', {}, False)

    def test_a_finished_run(self, tmp_path):
        write_training(tmp_path, '1', 3)
        run = read_run(tmp_path)
        assert run.metrics['coco/bbox_mAP'] == 0.303
        assert (run.state, run.finished) == ('epoch 3 of 3', True)

    def test_the_state_says_what_a_run_started_from(self, tmp_path):
        start = dict(initial_weights={'official://fishnet150': 'sha256'})
        write_training(tmp_path, '1', 2, **start)
        assert read_run(tmp_path).state == 'epoch 2 of 3, from official://fishnet150'
        write_training(tmp_path, '2', 2, metrics=None, resumed_from='epoch_2.pth', **start)
        write_test(tmp_path, '3', 3, coco(0.5))
        assert read_run(tmp_path).state == 'epoch 3 of 3, from official://fishnet150'

    def test_an_unfinished_run_is_marked(self, tmp_path):
        write_training(tmp_path, '1', 2)
        run = read_run(tmp_path)
        assert (run.state, run.finished) == ('epoch 2 of 3', False)

    def test_a_run_before_its_first_evaluation(self, tmp_path):
        write_training(tmp_path, '1', 0, metrics=None)
        assert read_run(tmp_path).state == 'not evaluated'

    def test_a_resumed_run(self, tmp_path):
        write_training(tmp_path, '1', 2)
        write_training(tmp_path, '2', 2, metrics=None, resumed_from='epoch_2.pth')
        assert read_run(tmp_path).state == 'epoch 2 of 3'
        write_training(tmp_path, '3', 3, resumed_from='epoch_2.pth')
        assert read_run(tmp_path).state == 'epoch 3 of 3'

    def test_of_a_run_that_was_started_anew_the_new_start_counts(self, tmp_path):
        write_training(tmp_path, '1', 3)
        write_test(tmp_path, '2', 3, coco(0.5))
        write_training(tmp_path, '3', 1)
        assert read_run(tmp_path).state == 'epoch 1 of 3'
        write_training(tmp_path, '4', 0, metrics=None)
        assert read_run(tmp_path).state == 'not evaluated'

    def test_a_real_run_of_iterations(self, tmp_path):
        train_for_iterations(tmp_path, 5)  # logged every second one, and evaluated
        run = read_run(tmp_path)
        assert (run.state, run.finished) == ('iteration 5 of 5', True)
        assert run.metrics['score/value'] == 5
        assert '"step": 0' in next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
        training, evaluations = read_logs(tmp_path)
        assert (list(training), list(evaluations)) == ([2, 4], [2, 4, 5])

    def test_a_test_of_the_last_checkpoint_is_a_finished_result(self, tmp_path):
        write_training(tmp_path, '1', 3)
        write_test(tmp_path, 'test/2', 3, coco(0.5))
        write_test(tmp_path, '3', 1, coco(0.1))
        write_test(tmp_path, '4', None, coco(0.2))
        write_test(tmp_path, '5', 3, {})  # format_only
        run = read_run(tmp_path)
        assert run.metrics['coco/bbox_mAP'] == 0.5
        assert (run.state, run.finished) == ('epoch 3 of 3', True)

    def test_a_test_of_weights_from_elsewhere_is_marked(self, tmp_path):
        write_test(tmp_path, '1', None, coco(0.2))
        run = read_run(tmp_path)
        assert run.metrics['coco/bbox_mAP'] == 0.2
        assert (run.state, run.finished) == ('weights from elsewhere: fishnet150.pth', False)


class TestCells:
    @pytest.mark.parametrize(
        ('measured', 'off', 'text'),
        [
            (37.3, False, '37.3 (37.0)'),
            (36.7, False, '36.7 (37.0)'),
            (36.6, True, '**36.6** (37.0, -0.4)'),
            (37.5, True, '**37.5** (37.0, +0.5)'),
        ],
    )
    def test_a_result_more_than_0_3_away_is_marked(self, measured, off, text):
        cell = Cell(37.0, measured, 1, judged=True)
        assert cell.off is off
        assert str(cell) == text

    def test_a_missing_result_has_its_reason(self):
        assert str(Cell(37.0, None, 1, 'not run', False, True)) == 'not run (37.0)'

    def test_what_was_not_published_is_left_out(self):
        assert str(Cell(None, 6.1, 2)) == '6.10'
        assert str(Cell(37.0, None, 1)) == '(37.0)'

    def test_an_unfinished_run_gets_a_star(self):
        assert str(Cell(37.0, 37.1, 1, 'epoch 1 of 3', False, True)) == '37.1* (37.0)'


class TestTables:
    def test_table_3_from_runs(self, tmp_path):
        write_training(tmp_path / MASK, '1', 3)
        boxes = lambda ap: coco(ap, kinds=('bbox',))  # noqa: E731
        write_training(tmp_path / BOX, '1', 2, metrics=boxes)
        (table,) = paper_tables(tmp_path, ['Table 3'])
        cells = table.rows['FishNet-150']
        assert [cell.published for cell in cells][:5] == [37.0, 19.8, 40.2, 50.3, 41.5]
        assert [round(cell.measured, 6) for cell in cells][:4] == [30.3, 11.3, 33.3, 41.3]
        assert [round(cell.measured, 6) for cell in cells][8:] == [30.2, 10.2, 32.2, 40.2]
        assert [cell.finished for cell in cells] == [True] * 8 + [False] * 4
        assert all(cell.state == 'not run' for cell in table.rows["ResNet-50, authors'"])
        markdown = to_markdown([table])
        assert '| FishNet-150 | **30.3** (37.0, -6.7) |' in markdown
        assert f'- `{BOX}`: epoch 2 of 3' in markdown
        assert '- `mask_rcnn_r50_fpn_coco`: not run' in markdown

    def test_sizes_of_masks_are_compared_as_each_row_told_them(self, tmp_path):
        write_training(tmp_path / 'mask_rcnn_r50_fpn_coco', '1', 3)
        (table,) = paper_tables(tmp_path, ['Table 3'])
        measured = {
            name: [round(cell.measured, 6) for cell in table.rows[f'ResNet-50, {name}'][:4]]
            for name in ('Detectron', "authors'")
        }
        assert measured == {
            'Detectron': [30.3, 10.3, 32.3, 40.3],
            "authors'": [30.3, 11.3, 33.3, 41.3],
        }

    def test_an_accuracy_becomes_an_error(self, tmp_path):
        metrics = {'accuracy/top1': 77.79, 'accuracy/top5': 94.0}
        write_test(tmp_path / 'fishnet150_imagenet', '1', 100, metrics, total=None)
        (table,) = paper_tables(tmp_path, ['Table 2'])
        parameters, error = table.rows['max-pooling 2x2']
        assert parameters.measured == 24.9594
        assert str(error) == '22.21* (21.93)'  # its config has no schedule, so it may be unfinished

    def test_a_change_of_the_error_is_that_of_two_runs(self, tmp_path):
        folder = tmp_path / 'fishnet150_imagenet'
        write_test(folder, '1', 100, {'accuracy/top1': 78.0}, total=100)
        (table,) = paper_tables(tmp_path, ['Dilation and stem'])
        cell = table.rows['dilation in the body, against none'][0]
        assert (cell.published, cell.measured, cell.finished) == (-0.13, None, False)
        folder = tmp_path / 'fishnet150_dilation-none_imagenet'
        write_test(folder, '1', 100, {'accuracy/top1': 77.9}, total=100)
        (table,) = paper_tables(tmp_path, ['Dilation and stem'])
        cell = table.rows['dilation in the body, against none'][0]
        assert cell.measured == pytest.approx(-0.1)
        assert cell.finished
        assert str(table.rows['dilation in body and head, against none'][0]) == 'not run (0.1)'

    def test_small_networks_have_seconds_per_epoch_and_keras_count_of_parameters(self, tmp_path):
        lines = [
            dict(loss=1.0, time=0.01, epoch=1, iter=100, step=100),
            dict(loss=1.0, time=0.03, epoch=1, iter=200, step=200),
            {'accuracy/top1': 88.0, 'step': 1},
        ]
        folder = tmp_path / 'report_fishnet55_fashion_mnist'
        write_training(folder, '1', 1, metrics=lambda _: {'accuracy/top1': 88.0})
        (folder / '1/vis_data').mkdir()
        log = ''.join(json.dumps(line) + '\n' for line in lines)
        (folder / '1/vis_data/scalars.json').write_text(log)
        (table,) = paper_tables(tmp_path, ['Table 4 of the report'])
        parameters, accuracy, seconds, *cifar = table.rows['FishNet-55']
        assert parameters.measured == 0.118752
        assert str(accuracy) == '**88.0*** (88.6, -0.6)'
        assert seconds.measured == pytest.approx(4.0)
        assert [str(cell) for cell in cifar] == ['not run (70.1)', 'not run (48.3)']
        counts = {name: cells[0] for name, cells in table.rows.items()}
        assert all(count.difference == 0 for count in counts.values())

    def test_parameters_of_every_row_are_counted(self, tmp_path):
        (table,) = paper_tables(tmp_path, ['Table 2'])
        millions = [round(cells[0].measured, 2) for cells in table.rows.values()]
        assert millions[:3] == [24.96] * 3
        assert millions[3] - millions[0] == pytest.approx(30.2 - 26.4, abs=0.1)

    def test_csv(self, tmp_path):
        write_training(tmp_path / MASK, '1', 3)
        tables = paper_tables(tmp_path, ['Table 3'])
        rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
        assert len(rows) == 4 * 12
        assert rows[-12] == dict(
            table='Table 3',
            row='FishNet-150',
            column='Mask R-CNN, masks, AP',
            published='37',
            measured='30.3',
            difference='-6.7',
            off='yes',
            state='epoch 3 of 3',
        )


class TestPublished:
    def test_every_row_has_an_entry_for_each_column(self):
        for name, table in load_published()['tables'].items():
            assert table['source'], name
            for row in table['rows']:
                assert len(row['published']) == len(table['columns']), (name, row['name'])

    def test_every_column_is_of_a_known_unit_and_run(self):
        for table in load_published()['tables'].values():
            for column in table['columns']:
                measured = {*FROM_RUNS, 'change of error'}
                computed = {'parameters', 'parameters and statistics', 'memory', 'memory ratio'}
                assert column['unit'] in measured | computed | {'seconds'}
                assert ('metric' in column) is (column['unit'] in measured)
                runs = [row['runs'] for row in table['rows'] if row['runs']]
                assert all(column.get('run', 0) < len(names) for names in runs)

    def test_improvements_of_table_3_are_those_that_the_paper_states(self):
        rows = {r['name']: r['published'] for r in load_published()['tables']['Table 3']['rows']}
        stated = {
            "ResNet-50, authors'": [2.3, 1.3, 2.8, 2.6, 2.8, 1.8, 2.9, 3.8, 2.6, 1.9, 2.3, 3.6],
            "ResNeXt-50 32x4d, authors'": [
                *(1.3, 0.7, 1.7, 1.8, 1.5, 1.0, 1.9, 2.2, 1.3, 0.1, 1.6, 2.0)
            ],
        }
        for name, gains in stated.items():
            pairs = zip(rows['FishNet-150'], rows[name], strict=True)
            assert [round(fish - other, 1) for fish, other in pairs] == gains


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    few = {'tables': {'Table 3': load_published()['tables']['Table 3']}}
    monkeypatch.setattr('benchmarks.paper_tables.load_published', lambda: few)
    markdown = write_paper_tables(tmp_path / 'none', tmp_path / 'out')
    assert markdown.startswith(f'There is no folder {tmp_path / "none"}')
    assert {path.suffix for path in (tmp_path / 'out').iterdir()} == {'.md', '.csv'}

"""What runs leave: the record, and predictions from which anybody can compute the metrics."""

import csv
import gzip
import hashlib
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import mmengine
import pytest
import torch
from made_up_results import CLASSES, IMAGES, Clairvoyant, write_annotations
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mmfish.engine.metrics import BoxAreaCocoMetric, ClassPredictions
from mmfish.engine.records import RECORD, RecordHook, compare

TOOL = str(Path(__file__).parents[2] / 'tools' / 'coco_ap.py')


def run(work_dir, model, **options):
    """A runner with the hook, in a folder of its own."""
    cfg = Config(options.pop('cfg', {}))
    cfg.update(load_from=options.get('load_from'))
    return Runner(
        model=model,
        work_dir=str(work_dir),
        cfg=cfg,
        custom_hooks=[RecordHook()],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        # MMEngine keeps one log of each name in a process.
        experiment_name='-'.join(work_dir.parts[-2:]),
        **options,
    )


def read(runner):
    return json.loads(Path(runner.log_dir, RECORD).read_text())


class Numbers(Dataset):
    """The numbers of images, with the metainfo of a data set."""

    metainfo = dict(classes=CLASSES)  # noqa: RUF012

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return index


@pytest.fixture
def detect(tmp_path):
    """Test a detector that needs no training; returns the runner and the metrics."""
    ann_file = write_annotations(tmp_path / 'annotations.json')

    def call(kind=BoxAreaCocoMetric, cfg=None, **options):
        metric = kind(ann_file=str(ann_file), metric=['bbox', 'segm'], **options)
        runner = run(
            tmp_path / 'work',
            Clairvoyant(),
            cfg=cfg or {},
            test_dataloader=DataLoader(Numbers(), batch_size=2, collate_fn=torch.tensor),
            test_evaluator=[metric],
            test_cfg=dict(),
        )
        runner.model.test_step = runner.model.forward
        return runner, runner.test()

    call.ann_file = ann_file
    return call


@pytest.mark.parametrize(
    ('kind', 'options', 'names'),
    [
        ('bbox', [], ['bbox_mAP', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l']),
        ('segm', [], ['segm_mAP', 'segm_mAP_s', 'segm_mAP_m', 'segm_mAP_l']),
        (
            'segm',
            ['--box-area'],
            ['segm_mAP', *(f'segm_mAP_{size}_box_area' for size in 'sml')],
        ),
    ],
)
def test_the_ap_of_a_test_can_be_computed_from_what_it_leaves(
    detect, monkeypatch, capsys, kind, options, names
):
    runner, metrics = detect()
    predictions = str(Path(runner.log_dir, f'predictions.{kind}.json.gz'))
    capsys.readouterr()
    monkeypatch.setattr('sys.argv', [TOOL, str(detect.ann_file), predictions, *options])
    runpy.run_path(TOOL, run_name='__main__')
    printed = re.findall(r'Average Precision.*= (-?[\d.]+)', capsys.readouterr().out)
    all_sizes, _, _, *by_size = map(float, printed)
    assert [all_sizes, *by_size] == [metrics[f'coco/{name}'] for name in names]


def test_the_tool_needs_nothing_but_pycocotools():
    imports = f'import runpy, sys; runpy.run_path({TOOL!r}); print(*sys.modules)'
    loaded = subprocess.run([sys.executable, '-c', imports], capture_output=True, text=True)
    assert 'pycocotools.cocoeval' in loaded.stdout.split()
    assert not {'torch', 'mmengine', 'mmdet', 'mmfish'} & set(loaded.stdout.split())


def test_a_record_has_what_the_result_depends_on(detect):
    bands = {'coco/bbox_mAP': (0.0, 0.1), 'coco/segm_mAP': (0.0, 1.0), 'coco/other': (0.0, 1.0)}
    runner, metrics = detect(cfg=dict(expected_metrics=bands, train_cfg=dict(max_epochs=3)))
    record = read(runner)
    assert record['kind'] == 'test'
    assert record['metrics'] == metrics
    assert record['trained'] is None
    assert record['expected'] == {
        'coco/bbox_mAP': 'above',
        'coco/segm_mAP': 'within',
        'coco/other': 'not measured',
    }
    assert record['seed'] == runner.seed
    assert Config.fromstring(record['config'], '.py').train_cfg == dict(max_epochs=3)
    assert record['versions']['torch'] == torch.__version__
    assert record['versions']['mmengine'] == mmengine.__version__
    assert record['ranks'][0]['memory'] > 1e8
    assert record['seconds'] > 0
    for name, sha256 in record['predictions'].items():
        assert hashlib.sha256(Path(runner.log_dir, name).read_bytes()).hexdigest() == sha256
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    ap = metrics['coco/bbox_mAP']
    assert f'What the config expects: coco/bbox_mAP {ap} (0.0 to 0.1): above; coco/segm_mAP' in log


def test_the_commit_is_that_of_the_clone(detect):
    clone = Path(TOOL).parents[1]
    head = subprocess.run(
        ['git', '-C', clone, 'rev-parse', 'HEAD'], capture_output=True, text=True
    ).stdout.strip()
    if not head:
        pytest.skip('not in a clone')
    assert read(detect()[0])['commit'] in (head, f'{head}-dirty')


def test_files_that_the_user_asked_for_stay_where_they_are(detect, tmp_path):
    runner, _ = detect(CocoMetric, outfile_prefix=str(tmp_path / 'mine'))
    for kind in ('bbox', 'segm'):
        mine = (tmp_path / f'mine.{kind}.json').read_bytes()
        packed = Path(runner.log_dir, f'predictions.{kind}.json.gz').read_bytes()
        assert gzip.decompress(packed) == mine
    assert runner.test_evaluator.metrics[0].outfile_prefix == str(tmp_path / 'mine')


def test_what_an_earlier_run_left_under_the_same_name_is_not_taken_for_this_ones(detect, tmp_path):
    for kind in ('segm', 'gt'):  # one that this run writes anew, and one that it does not write
        (tmp_path / f'mine.{kind}.json').write_text('[]')
    runner, _ = detect(CocoMetric, outfile_prefix=str(tmp_path / 'mine'))
    kept = {f'predictions.{kind}.json.gz' for kind in ('bbox', 'segm')}
    assert read(runner)['predictions'].keys() == kept
    packed = Path(runner.log_dir, 'predictions.segm.json.gz').read_bytes()
    assert gzip.decompress(packed) != b'[]'


def test_the_evaluator_is_left_as_it_was(detect):
    runner, metrics = detect(CocoMetric)
    (metric,) = runner.test_evaluator.metrics
    assert metric.outfile_prefix is None
    assert runner.test() == metrics


def test_a_record_that_cannot_be_written_is_a_warning(detect, monkeypatch):
    before = RecordHook.before_run

    def obstruct(hook, runner):
        before(hook, runner)
        Path(runner.log_dir, RECORD).mkdir()

    monkeypatch.setattr(RecordHook, 'before_run', obstruct)
    runner, metrics = detect()
    assert metrics['coco/bbox_mAP'] > 0
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'The record of the run could not be written to' in log


class Brightness(BaseModel):
    """A classifier of single pixels into six classes."""

    def forward(self, inputs, mode='predict'):
        samples = []
        for number in inputs:
            scores = torch.softmax(-((torch.arange(6) - number.item()) ** 2).float(), dim=0)
            sample = DataSample(metainfo=dict(img_path=f'{number.item()}.png'))
            samples.append(sample.set_gt_label(int(number) // 2).set_pred_score(scores))
        return samples


def classify(work_dir, metric):
    """A runner that tests a classifier."""
    runner = run(
        work_dir,
        Brightness(),
        test_dataloader=DataLoader(torch.arange(5.0), batch_size=2),
        test_evaluator=[metric],
        test_cfg=dict(),
    )
    runner.model.test_step = runner.model.forward
    return runner


def test_a_classifier_leaves_the_classes_of_each_image(tmp_path):
    runner = classify(tmp_path, Accuracy(topk=(1, 5)))
    metrics = runner.test()
    packed = Path(runner.log_dir, 'predictions.csv.gz').read_bytes()
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))
    assert [row['image'] for row in rows] == [f'{i}.0.png' for i in range(5)]
    top = [[row[f'class_{i + 1}'] for i in range(5)] for row in rows]
    right = [row['label'] == classes[0] for row, classes in zip(rows, top, strict=True)]
    assert metrics['accuracy/top1'] == pytest.approx(100 * sum(right) / 5)
    right = [row['label'] in classes for row, classes in zip(rows, top, strict=True)]
    assert metrics['accuracy/top5'] == pytest.approx(100 * sum(right) / 5)
    assert all(float(row['score_1']) > float(row['score_2']) for row in rows)
    assert list(read(runner)['predictions']) == ['predictions.csv.gz']
    assert len(runner.test_evaluator.metrics) == 1


def test_the_classes_of_images_are_collected_as_the_accuracy_is(tmp_path, monkeypatch):
    ways = []

    class Watched(ClassPredictions):
        def compute_metrics(self, results):
            ways.append((self.collect_device, self.collect_dir))
            return super().compute_metrics(results)

    monkeypatch.setattr('mmfish.engine.records.ClassPredictions', Watched)
    for device in ('cpu', 'gpu'):
        classify(tmp_path / device, Accuracy(collect_device=device)).test()
    assert ways == [('cpu', None), ('gpu', None)]


def test_classes_of_images_that_cannot_be_written_cost_no_accuracy(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmfish.engine.metrics.write_atomically', full)
    runner = classify(tmp_path, Accuracy())
    metrics = runner.test()
    record = read(runner)
    assert (record['metrics'], record['predictions']) == (metrics, {})
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'The predictions could not be written to' in log


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.weight.square().sum()) if mode == 'loss' else [inputs]


class Records(BaseMetric):
    """A metric that keeps the record as it is during each validation."""

    default_prefix = 'score'
    seen: list = []  # noqa: RUF012

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        file = max(Path(self.work_dir).glob(f'*/{RECORD}'))
        self.seen.append(json.loads(file.read_text()))
        return dict(value=len(self.seen))


def train(work_dir, epochs, seen, **options):
    metric = Records()
    metric.work_dir, metric.seen = work_dir, seen
    data = DataLoader(TensorDataset(torch.zeros(2, 1)))
    runner = run(
        work_dir,
        Line(),
        cfg=dict(train_cfg=dict(by_epoch=True, max_epochs=epochs), resume=bool(options)),
        train_dataloader=data,
        val_dataloader=data,
        val_evaluator=[metric],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        **options,
    )
    runner.train()
    return runner


def test_a_training_writes_its_record_as_it_goes(tmp_path):
    seen = []
    runner = train(tmp_path, 2, seen)
    begun, first = seen
    assert (begun['metrics'], begun['trained']['done']) == ({}, 0)
    assert first['metrics'] == {'score/value': 1}
    assert (first['trained']['done'], first['trained']['of']) == (1, 2)
    record = read(runner)
    assert (record['metrics'], record['trained']['done']) == ({'score/value': 2}, 2)
    last = str(tmp_path / 'epoch_2.pth')
    assert record['checkpoint'] == {last: hashlib.sha256(Path(last).read_bytes()).hexdigest()}
    assert record['trained']['name'] == record['name'] == runner.experiment_name
    assert record['resumed_from'] is None


def test_a_resumed_training_names_what_it_has_gone_on_from(tmp_path):
    checkpoint = str(tmp_path / 'one' / 'epoch_1.pth')
    train(tmp_path / 'one', 1, [])
    runner = train(tmp_path / 'two', 3, seen := [], resume=True, load_from=checkpoint)
    assert seen[0]['trained']['done'] == 1
    record = read(runner)
    assert (record['resumed_from'], record['initial_weights']) == (checkpoint, {})
    assert record['trained']['done'] == 3


def test_a_tested_checkpoint_says_which_run_it_is_from(tmp_path):
    trained = train(tmp_path / 'trained', 2, [])
    checkpoint = str(tmp_path / 'trained' / 'epoch_1.pth')
    runner = run(
        tmp_path / 'tested',
        Line(),
        cfg=dict(train_cfg=dict(max_epochs=2)),
        load_from=checkpoint,
        test_dataloader=DataLoader(TensorDataset(torch.zeros(2, 1))),
        test_evaluator=[],
        test_cfg=dict(),
    )
    runner.model.test_step = lambda batch: [{}]
    runner.test()
    record = read(runner)
    name = trained.experiment_name
    assert record['trained'] == dict(unit='epoch', done=1, of=2, name=name)
    sha256 = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert record['checkpoint'] == {checkpoint: sha256}


def test_a_validation_alone_builds_no_training_and_leaves_no_record(tmp_path):
    data = DataLoader(TensorDataset(torch.zeros(2, 1)))
    runner = run(
        tmp_path,
        Line(),
        train_dataloader=dict(dataset=dict(type='NeverBuilt')),
        val_dataloader=data,
        val_evaluator=[],
        train_cfg=dict(by_epoch=True, max_epochs=1),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    runner.model.val_step = lambda batch: [{}]
    runner.val()
    assert list(tmp_path.rglob(RECORD)) == []


def test_predictions_are_kept_of_the_last_validation_only(tmp_path):
    ann_file = write_annotations(tmp_path / 'annotations.json')
    folders = []

    class Watch(RecordHook):
        def after_val_epoch(self, runner, metrics=None):
            super().after_val_epoch(runner, metrics)
            folders.append(sorted(path.name for path in Path(runner.log_dir).glob('*.gz')))

    class Both(Line):
        def forward(self, inputs, mode='loss'):
            return super().forward(inputs, mode) if mode == 'loss' else Clairvoyant()(inputs)

        def val_step(self, data):
            return self(data, mode='predict')

        def train_step(self, data, optim_wrapper):
            loss = self(data)['loss']
            optim_wrapper.update_params(loss)
            return dict(loss=loss)

    loader = DataLoader(Numbers(), batch_size=2, collate_fn=torch.tensor)
    Runner(
        model=Both(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        val_dataloader=loader,
        val_evaluator=[CocoMetric(ann_file=str(ann_file))],
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[Watch()],
        experiment_name=tmp_path.name,
    ).train()
    assert folders == [[], ['predictions.bbox.json.gz', 'predictions.segm.json.gz']]


@pytest.mark.parametrize(
    ('value', 'verdict'),
    [(0.411, 'below'), (0.412, 'within'), (0.418, 'within'), (0.419, 'above')],
)
def test_the_bounds_of_a_band_are_in_it(value, verdict):
    assert compare({'coco/bbox_mAP': (0.412, 0.418)}, {'coco/bbox_mAP': value}) == {
        'coco/bbox_mAP': verdict
    }

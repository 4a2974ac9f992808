"""Short real runs of the command-line tools: train, resume, test."""

import json
import os
import pickle
import re
import runpy
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.registry import DefaultScope

from demo import CONFIGS
from demo.logs import read_run
from mmfish.engine.records import RECORD

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / 'tools'
CONFIG = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
SMALL = (
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=2',
)


def run(*command, status=0):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    process = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment
    )
    output = process.stdout + process.stderr
    assert process.returncode == status, output[-3000:]
    return output


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The work directory of a run of two iterations, resumed for two more, and both outputs."""
    work_dir = tmp_path_factory.mktemp('run')
    train = (sys.executable, TOOLS / 'train.py', CONFIG, '--data-root', shapes)
    train += ('--work-dir', work_dir)
    first = run(*train, '--cfg-options', *SMALL, 'train_cfg.max_iters=2')
    second = run(*train, '--resume', '--cfg-options', *SMALL, 'train_cfg.max_iters=4')
    return work_dir, first, second


def iterations(output):
    return [int(i) for i in re.findall(r'Iter\(train\) +\[ *(\d+)/', output)]


def test_training_writes_a_checkpoint_and_resume_goes_on_from_it(trained):
    work_dir, first, second = trained
    assert iterations(first) == [1, 2]
    assert iterations(second) == [3, 4]
    before, after = (torch.load(work_dir / f'iter_{i}.pth', weights_only=False) for i in (2, 4))
    key = 'backbone.stem.0.weight'
    assert not torch.equal(before['state_dict'][key], after['state_dict'][key])


def test_the_work_directory_keeps_a_config_for_mmdetections_own_tools(trained, shapes):
    work_dir = trained[0]
    checkpoint = torch.load(work_dir / 'iter_4.pth', weights_only=False)
    file = Config.fromfile(work_dir / Path(CONFIG).name)
    assert Config.fromstring(checkpoint['meta']['cfg'], '.py').to_dict() == file.to_dict()
    assert 'custom_hooks' not in file
    assert file.default_hooks.checkpoint.type == 'CheckpointHook'
    assert file.test_dataloader.dataset.pipeline[0].type == 'LoadImageFromFile'
    with DefaultScope.overwrite_default_scope('mmdet'):
        inferencer = DetInferencer(
            weights=str(work_dir / 'iter_4.pth'), device='cpu', show_progress=False
        )
        pictures = [str(path) for path in (shapes / 'val2017').iterdir()]
        assert len(inferencer(pictures)['predictions']) == 4


def test_testing_a_checkpoint_gives_box_and_mask_ap_predictions_and_pictures(
    trained, shapes, tmp_path
):
    output = run(
        *(sys.executable, TOOLS / 'test.py', CONFIG, trained[0] / 'iter_4.pth'),
        *('--data-root', shapes, '--work-dir', tmp_path, '--out', tmp_path / 'results.pkl'),
        *('--show-dir', 'pictures', '--cfg-options', *SMALL),
    )
    assert re.search(r'coco/bbox_mAP: [\d.]+ .*coco/segm_mAP: [\d.]+ ', output)
    with open(tmp_path / 'results.pkl', 'rb') as file:
        assert len(pickle.load(file)) == 4
    assert len(list(tmp_path.glob('*/pictures/*.png'))) == 4
    (record,) = (json.loads(file.read_text()) for file in tmp_path.glob(f'*/{RECORD}'))
    weights = trained[0] / 'iter_4.pth'
    assert record['checkpoint'] == {str(weights): sha256(weights.read_bytes()).hexdigest()}
    assert record['trained']['done'] == 4
    assert set(record['predictions']) == {f'predictions.{k}.json.gz' for k in ('bbox', 'segm')}


def test_each_process_of_a_training_leaves_a_record(trained):
    records = [json.loads(file.read_text()) for file in sorted(trained[0].glob(f'*/{RECORD}'))]
    first, second = records
    assert (first['resumed_from'], second['resumed_from']) == (None, str(trained[0] / 'iter_2.pth'))
    assert [record['trained']['done'] for record in records] == [2, 4]
    run = read_run(trained[0])
    assert (run.metrics, run.finished) == (second['metrics'], True)


def test_results_are_written_for_a_server_that_has_the_annotations(trained, shapes, tmp_path):
    """The overrides of docs/reproduce.md for COCO's test-dev."""
    content = json.loads((shapes / 'annotations/instances_val2017.json').read_text())
    del content['annotations']
    ann_file = tmp_path / 'image_info_test-dev2017.json'
    ann_file.write_text(json.dumps(content))
    run(
        *(sys.executable, TOOLS / 'test.py', CONFIG, trained[0] / 'iter_4.pth'),
        *('--data-root', shapes, '--work-dir', tmp_path / 'work', '--cfg-options', *SMALL),
        f'test_dataloader.dataset.ann_file={ann_file}',
        f'test_evaluator.ann_file={ann_file}',
        'test_evaluator.format_only=True',
        f'test_evaluator.outfile_prefix={tmp_path}/test-dev',
    )
    found = json.loads((tmp_path / 'test-dev.segm.json').read_text())
    assert {result['image_id'] for result in found} <= {i['id'] for i in content['images']}
    assert all({'category_id', 'score', 'segmentation'} <= result.keys() for result in found)


def test_a_missing_data_set_ends_with_one_sentence(tmp_path, monkeypatch):
    tool = str(TOOLS / 'train.py')
    data, work = tmp_path / 'nowhere', tmp_path / 'work'
    arguments = [CONFIG, '--data-root', str(data), '--work-dir', str(work)]
    monkeypatch.setattr('sys.argv', [tool, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(tool, run_name='__main__')
    message = str(stopped.value)
    assert message.startswith(f'train.py: the folder of the data set, {data}, is not there')
    assert '\n' not in message
    assert not work.exists()

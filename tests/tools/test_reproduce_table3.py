"""The six cells of table 3, with stand-ins for srun and python that record their arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmfish import config_path

SCRIPT = Path(__file__).parents[2] / 'tools' / 'reproduce_table3.sh'
CELLS = [
    f'{detector}_rcnn_{backbone}_fpn_coco'
    for detector in ('faster', 'mask')
    for backbone in ('r50', 'x50_32x4d', 'fishnet150')
]
# Training fails where FAIL is in its command line.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
case "$*" in *train.py*"${FAIL:-nothing}"*) exit 3;; esac
"""
OURS = ('GPUS', 'NNODES', 'PYTHON', 'REQUEUE', 'WEIGHTS', 'FISHNET150')
METRICS = '{"coco/bbox_mAP": 0.4, "coco/bbox_mAP_50": 0.6, "time": 0.1, "step": %d}\n'


@pytest.fixture
def reproduce(tmp_path):
    """Call the script in an empty folder; returns its exit status and the words of each call."""
    for name in ('srun', 'python'):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)

    def call(*arguments, **variables):
        (tmp_path / 'calls').write_text('')
        process = subprocess.run(
            [SCRIPT, *arguments],
            cwd=tmp_path,
            env={
                **{k: v for k, v in os.environ.items() if k not in OURS},
                'PATH': f'{tmp_path}:{os.environ["PATH"]}',
                **variables,
            },
            capture_output=True,
            text=True,
        )
        call.errors.append(process.stderr)
        calls = (tmp_path / 'calls').read_text().splitlines()
        return process.returncode, [line.split() for line in calls]

    call.root = tmp_path
    call.errors = []
    return call


def cells(calls, tool):
    """The names of the configs for which a tool was called."""
    return sorted(
        Path(word).stem
        for words in calls
        if any(word.endswith(f'/{tool}.py') for word in words)
        for word in words
        if '/configs/' in word
    )


def value(words, option):
    return words[words.index(option) + 1]


def finish(root, cell, step=32):
    folder = root / 'work_dirs' / cell / '20260101_000000' / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(METRICS % step)
    (root / 'work_dirs' / cell / 'epoch_32.pth').touch()


def test_the_cells_are_configs():
    assert all(Path(config_path(f'{cell}.py')).is_file() for cell in CELLS)


def test_each_cell_is_trained_with_resume_and_then_evaluated(reproduce):
    status, calls = reproduce('local', '--amp', GPUS='4', DATA_ROOT='/data/coco')
    assert status == 0
    assert cells(calls, 'train') == cells(calls, 'test') == sorted(CELLS)
    for words in calls:
        assert '--nproc_per_node=4' in words
        assert value(words, '--data-root') == '/data/coco'
    train, test = calls[:2]
    assert value(train, '--work-dir') == f'work_dirs/{CELLS[0]}'
    assert train[-3:] == ['--resume', '--auto-scale-lr', '--amp']
    assert f'work_dirs/{CELLS[0]}/epoch_32.pth' in test
    assert value(test, '--work-dir') == f'work_dirs/{CELLS[0]}/test'


def test_the_gpus_of_a_cell_are_shared_by_the_machines(reproduce):
    status, calls = reproduce('local', NNODES='2', NODE_RANK='1')
    assert status == 0
    assert cells(calls, 'train') == cells(calls, 'test') == sorted(CELLS)
    for words in calls:
        assert {'--nnodes=2', '--node_rank=1', '--nproc_per_node=8'} <= set(words)


def test_a_number_of_gpus_that_machines_cannot_share_equally_is_refused(reproduce):
    status, calls = reproduce('local', NNODES='3')
    assert (status, calls) == (2, [])
    expected = 'GPUS=16 cannot be shared equally by NNODES=3 machines'
    assert expected in reproduce.errors[-1]
    # Slurm places the ranks by itself.
    assert reproduce('slurm', 'gpu', NNODES='3')[0] == 0


def test_slurm_gets_every_cell_with_the_papers_number_of_gpus(reproduce):
    status, calls = reproduce('slurm', 'gpu', SRUN_ARGS='--qos=high', GPUS_PER_NODE='4')
    assert status == 0
    assert cells(calls, 'train') == sorted(CELLS)
    for words in calls:
        assert words[0] == 'srun'
        assert {'--partition=gpu', '--ntasks=16', '--gres=gpu:4', '--qos=high'} <= set(words)
        name = next(word for word in words if word.startswith('--job-name='))
        assert name.removeprefix('--job-name=') in CELLS
        assert value(words, '--data-root') == 'data/coco'


def test_requeued_trainings_which_nobody_would_evaluate_are_refused(reproduce):
    assert reproduce('slurm', 'gpu', REQUEUE='1') == (2, [])
    assert 'REQUEUE' in reproduce.errors[-1]


def test_finished_cells_are_skipped_and_cells_without_a_result_evaluated(reproduce):
    done, stopped, early = CELLS[:3]
    finish(reproduce.root, done)
    finish(reproduce.root, stopped, step=31)
    finish(reproduce.root, early, step=31)
    (reproduce.root / 'work_dirs' / early / 'epoch_32.pth').unlink()
    status, calls = reproduce('local')
    assert status == 0
    assert cells(calls, 'train') == sorted(CELLS[2:])
    assert cells(calls, 'test') == sorted(CELLS[1:])
    tested = reproduce.root / 'work_dirs' / stopped / 'test' / '20260102_000000'
    tested.mkdir(parents=True)
    (tested / '20260102_000000.json').write_text(METRICS % 0)
    assert stopped not in cells(reproduce('local')[1], 'test')


def test_a_test_that_measured_nothing_is_repeated(reproduce):
    finish(reproduce.root, CELLS[0], step=31)
    tested = reproduce.root / 'work_dirs' / CELLS[0] / 'test' / '20260102_000000'
    tested.mkdir(parents=True)
    record = dict(metrics={}, expected={'coco/bbox_mAP': 'not measured'})
    (tested / 'run_record.json').write_text(json.dumps(record, indent=2))
    assert CELLS[0] in cells(reproduce('local')[1], 'test')


def test_a_failed_cell_is_not_evaluated_and_the_others_go_on(reproduce):
    status, calls = reproduce('local', FAIL=CELLS[0])
    assert status == 1
    assert cells(calls, 'train') == sorted(CELLS)
    assert cells(calls, 'test') == sorted(CELLS[1:])


def starts(calls):
    """What the command lines of each cell say about the weights, by the cell's folder."""
    option = 'model.backbone.init_cfg.checkpoint='
    return {
        (Path(value(words, '--work-dir')).as_posix(), word.removeprefix(option))
        for words in calls
        if any(tool in ' '.join(words) for tool in ('/train.py', '/test.py'))
        for word in words
        if word.startswith(option)
    }


@pytest.mark.parametrize('given', [None, '/weights/fishnet150_ckpt.tar'])
def test_the_papers_weights_are_given_to_each_cell_in_folders_of_their_own(reproduce, given):
    variables = dict(FISHNET150=given) if given else {}
    status, calls = reproduce('local', '--cfg-options', 'a=1', WEIGHTS='paper', **variables)
    assert status == 0
    expected = {
        'r50': 'torchvision://resnet50',
        'x50_32x4d': 'open-mmlab://resnext50_32x4d',
        'fishnet150': given or 'official://fishnet150',
    }
    folders = {
        f'work_dirs/paper_weights/{detector}_rcnn_{backbone}_fpn_coco{folder}': start
        for detector in ('faster', 'mask')
        for backbone, start in expected.items()
        for folder in ('', '/test')
    }
    assert starts(calls) == set(folders.items())
    assert calls[0][-1] == expected['fishnet150']  # read before anything is trained
    assert calls[1][-2:] == ['--cfg-options', 'a=1']


def test_matched_weights_are_those_of_the_configs(reproduce):
    assert starts(reproduce('local', WEIGHTS='matched')[1]) == set()


def test_weights_of_neither_kind_are_refused(reproduce):
    assert reproduce('local', WEIGHTS='best') == (2, [])
    assert "WEIGHTS=best is neither 'matched' nor 'paper'" in reproduce.errors[-1]


@pytest.mark.slow
def test_a_missing_file_of_the_authors_is_found_out_before_any_training(tmp_path):
    process = subprocess.run(
        [SCRIPT, 'local'],
        cwd=tmp_path,
        env=dict(os.environ, WEIGHTS='paper', FISHNET150='none.tar', PYTHON=sys.executable),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith('FISHNET150: none.tar cannot be read')
    assert list(tmp_path.iterdir()) == []

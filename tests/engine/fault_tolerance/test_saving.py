import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mmfish.engine.fault_tolerance.saving import (
    checkpoint_problem,
    checkpoint_to_resume,
    describe_last_checkpoint,
)
from mmfish.errors import CheckpointError, TrainingError


class Weight(BaseModel):
    def __init__(self, size=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, *inputs, mode='loss'):
        return dict(loss=self.weight.sum()) if mode == 'loss' else [self.weight.sum()]


class Epoch(BaseMetric):
    """A metric that improves with every epoch."""

    def process(self, data_batch, data_samples):
        self.results.append(-data_samples[0].item())

    def compute_metrics(self, results):
        return dict(mAP=results[0])


def make_runner(work_dir, model=None, epochs=4, **options):
    return Runner(
        model=model or Weight(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(TensorDataset(torch.zeros(2, 1))),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(
            logger=None, checkpoint=dict(type='mmfish.AtomicCheckpointHook', interval=1, **options)
        ),
        val_dataloader=DataLoader(TensorDataset(torch.zeros(1, 1))),
        val_cfg=dict(),
        val_evaluator=[Epoch()],
        experiment_name=f'{work_dir.name}-{epochs}-{len(options)}',
    )


def epochs_in(folder):
    """Names of the checkpoints of epochs."""
    return sorted(path.name for path in folder.glob('epoch_*'))


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_outdated_checkpoints_and_former_best_ones_are_removed(tmp_path):
    make_runner(tmp_path, max_keep_ckpts=2, save_best='mAP').train()
    expected = ['best_mAP_epoch_4.pth', 'epoch_3.pth', 'epoch_4.pth', 'last_checkpoint']
    assert [name for name in files(tmp_path) if not name.endswith('.py')] == expected
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')


def test_a_resumed_run_removes_what_a_killed_run_had_half_written(tmp_path):
    make_runner(tmp_path, epochs=2).train()
    part = tmp_path / '.host-1.part'
    part.write_bytes(b'half')
    resumed = make_runner(tmp_path, epochs=2)
    resumed.resume(str(tmp_path / 'epoch_2.pth'))
    resumed.train()
    assert epochs_in(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    assert not part.exists()


def test_a_checkpoint_can_be_saved_without_training(tmp_path):
    runner = make_runner(tmp_path)
    runner.save_checkpoint(str(tmp_path), 'untrained.pth', save_optimizer=False)
    assert (tmp_path / 'untrained.pth').exists()


def test_the_outdated_checkpoint_is_there_until_the_new_one_is_written(tmp_path):
    seen = []

    def watch(event, arguments):
        if event == 'os.rename' and str(arguments[1]).startswith(str(tmp_path)):
            seen.append((Path(arguments[1]).name, epochs_in(tmp_path)))

    sys.addaudithook(watch)  # stays for the whole process, and looks at this folder alone
    make_runner(tmp_path, epochs=2, max_keep_ckpts=1).train()
    assert ('epoch_2.pth', ['epoch_1.pth']) in seen
    assert epochs_in(tmp_path) == ['epoch_2.pth']


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', folder]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'mounting a small file system needs root: {error}')
    yield folder
    subprocess.run(['umount', '--lazy', folder], check=True)


def test_a_full_disk_ends_with_a_sentence_and_the_checkpoint_before_it(small_disk):
    # Each checkpoint has 1 MB, and something has to be left for the logs.
    runner = make_runner(small_disk, Weight(size=2**18))
    message = r'after iteration 6 could not be written .*No space left.*epoch_2\.pth.*--resume'
    with pytest.raises(CheckpointError, match=message):
        runner.train()
    assert [name for name in files(small_disk) if '.pth' in name] == ['epoch_1.pth', 'epoch_2.pth']
    last = checkpoint_to_resume(small_disk, 'auto')
    assert last == str(small_disk / 'epoch_2.pth')
    assert torch.load(last, weights_only=False)['meta']['epoch'] == 2


def test_weights_of_nan_are_not_saved(tmp_path):
    runner = make_runner(tmp_path)
    runner.model.weight.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r'iteration 2 .*weight.*no checkpoint yet'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def checkpoint(folder, epoch, seconds):
    path = folder / f'epoch_{epoch}.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(1000))), path)
    os.utime(path, (seconds, seconds))
    (folder / 'last_checkpoint').write_text(str(path))
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_bits(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def overwrite(path):
    path.write_bytes(b'<html>not found</html>')


def empty(path):
    path.write_bytes(b'')


@pytest.mark.parametrize(
    ('damage', 'why'),
    [
        (truncate, 'damaged, or not what torch.save writes'),
        (flip_bits, 'does not have its checksum'),
        (overwrite, 'not a zip file'),
        (empty, '0 bytes'),
        (Path.unlink, 'No such file'),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_newest_good_one_taken(tmp_path, capsys, damage, why):
    # In alphabetical order 10 comes before 9, but its file is newer.
    paths = [checkpoint(tmp_path, epoch, seconds=epoch) for epoch in (8, 9, 10)]
    assert checkpoint_problem(paths[-1]) is None
    damage(paths[-1])
    assert checkpoint_to_resume(tmp_path, 'auto') == str(paths[1])
    message = capsys.readouterr().err
    assert message.startswith(f'{paths[-1]} cannot be resumed from: ')
    assert why in message
    assert f'Going on from {paths[1]} instead' in message
    with pytest.raises(CheckpointError, match='Name another one'):
        checkpoint_to_resume(tmp_path, str(paths[-1]))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(tmp_path):
    for epoch in (1, 2):
        truncate(checkpoint(tmp_path, epoch, seconds=epoch))
    with pytest.raises(CheckpointError, match=r'epoch_2\.pth.*epoch_1\.pth.*without --resume'):
        checkpoint_to_resume(tmp_path, 'auto')


def test_a_run_without_checkpoints_has_nothing_to_resume_from(tmp_path):
    assert checkpoint_to_resume(tmp_path / 'nowhere', 'auto') is None


def test_an_empty_last_checkpoint_does_not_start_a_run_anew(tmp_path, capsys):
    paths = [checkpoint(tmp_path, epoch, seconds=epoch) for epoch in (1, 2)]
    (tmp_path / 'last_checkpoint').write_text('')
    assert describe_last_checkpoint(tmp_path) == f'the last good checkpoint is {paths[1]}'
    assert checkpoint_to_resume(tmp_path, 'auto') == str(paths[1])
    for path in paths:
        path.unlink()
    with pytest.raises(CheckpointError, match=r'last_checkpoint is empty.*without --resume'):
        checkpoint_to_resume(tmp_path, 'auto')

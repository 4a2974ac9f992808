import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from mmfish.engine.fault_tolerance.saving import checkpoint_to_resume
from mmfish.engine.fault_tolerance.stopping import STOPPED_FILE, signal_handlers_kept
from mmfish.errors import TrainingError


class Broken(BaseModel):
    """A model whose loss is the number that the data loader gives it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples, mode='loss'):
        return dict(loss_cls=self.weight.sum() + inputs[0], acc=inputs[0])


class Signal(Hook):
    def __init__(self, number, iteration):
        self.number, self.iteration = number, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)


def train(work_dir, losses, hook=None, **kwargs):
    images = [
        dict(
            inputs=torch.tensor(loss),
            data_samples=BaseDataElement(metainfo=dict(img_path=f'{number}.jpg')),
        )
        for number, loss in enumerate(losses)
    ]
    runner = Runner(
        model=Broken(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=images, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1
        ),
        train_cfg=dict(type='mmfish.ResumableTrainLoop', max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(logger=None, checkpoint=dict(type='mmfish.AtomicCheckpointHook')),
        custom_hooks=[
            dict(type='mmfish.StopHook'),
            dict(type='mmfish.ResumeHook'),
            *filter(None, [hook]),
        ],
        experiment_name=f'{work_dir.name}-{len(kwargs)}',
        **kwargs,
    )
    with signal_handlers_kept():
        runner.train()
    return runner


@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_a_loss_of_nan_or_inf_ends_the_run_and_names_iteration_and_images(tmp_path, loss):
    message = rf'iteration 2, epoch 1: loss {loss}, loss_cls {loss} for the images 1\.jpg; '
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, [1.0, loss])
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_state_and_the_resumed_run_goes_on_from_there(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, [1.0] * 5, Signal(number, 7))
    assert signal.getsignal(number) == before
    assert stopped.value.code == 75
    assert (tmp_path / STOPPED_FILE).exists()
    newest = checkpoint_to_resume(tmp_path, 'auto')
    assert newest == str(tmp_path / 'preempted.pth')
    runner = train(tmp_path, [1.0] * 5, resume=True, load_from=newest)
    assert runner.iter == 10
    assert runner.model.weight.item() == -10
    # Gone with the next checkpoint, and with the next start.
    assert not (tmp_path / 'preempted.pth').exists()
    assert not (tmp_path / STOPPED_FILE).exists()
    assert signal.getsignal(number) == before


# As on Windows. The platform is set last, because other packages look at it too.
ELSEWHERE = """
import signal, sys
for name in ('SIGUSR1', 'pthread_sigmask', 'sigwaitinfo'):
    delattr(signal, name)
from mmfish.engine.fault_tolerance import stopping
assert stopping.SIGNALS == (signal.SIGTERM,), stopping.SIGNALS
sys.platform = 'win32'
stopping._end_with_rank(3, before=lambda worker: print('seeded worker', worker))
"""


@pytest.mark.slow
def test_without_the_signals_of_linux_a_run_listens_to_sigterm_alone():
    command = [sys.executable, '-c', ELSEWHERE]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith('seeded worker 3\n')

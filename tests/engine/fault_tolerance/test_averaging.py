"""BatchNorm statistics of two ranks in a checkpoint. Each rank runs this file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.slow

ITERATIONS = 3


class Norm(BaseModel):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.norm(inputs).square().sum())


def train(work_dir):
    """Train on batches whose mean is 1 on rank 0 and 3 on rank 1."""
    dist.init_process_group('gloo')
    mean = 1.0 + 2 * dist.get_rank()
    images = TensorDataset(torch.tensor([[mean - 1], [mean + 1]]).repeat(ITERATIONS, 1))
    Runner(
        model=Norm(),
        work_dir=work_dir,
        train_dataloader=DataLoader(images, batch_size=2),
        train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        default_hooks=dict(
            logger=None, checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)
        ),
        custom_hooks=[dict(type='mmfish.AverageStatisticsHook')],
        launcher='pytorch',
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
            )
        ),
    ).train()


def test_the_checkpoint_of_an_iteration_has_the_average_of_the_ranks(tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    process = subprocess.run(
        [*command, '--nproc_per_node=2', __file__, str(tmp_path)],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    # The one after the last iteration is saved by `save_last`.
    for iteration in (2, 3):
        checkpoint = torch.load(Path(tmp_path, f'iter_{iteration}.pth'), weights_only=False)
        found = checkpoint['state_dict']['norm.running_mean'].item()
        # With the momentum of 0.1 the statistics approach the mean of 1 and 3.
        assert found == pytest.approx(2 * (1 - 0.9**iteration))


if __name__ == '__main__':
    train(sys.argv[1])

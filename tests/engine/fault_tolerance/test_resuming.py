import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmfish.engine.fault_tolerance.resuming import seed_generators
from mmfish.engine.prepare import tolerate_faults

IMAGES, BATCH = 12, 2


class Noise:
    """A data set of random numbers of the three generators."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        drawn = random.random(), np.random.rand(), torch.rand(1).item()
        return torch.tensor([index, *drawn], dtype=torch.float64)


class Noisy(BaseModel):
    """A model whose training depends on its data and on dropout."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, *data, mode='loss'):
        dropped = nn.functional.dropout(torch.stack(data), training=True)
        return dict(loss=(dropped @ self.weight - 1).square().mean())


class Stop(Hook):
    """Record the batches; after iteration `at`, save as after a signal and interrupt the run."""

    def __init__(self, at=None):
        self.at, self.seen = at, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append((runner.iter, batch_idx, torch.stack(data_batch)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at:
            hook = next(hook for hook in runner.hooks if hasattr(hook, 'save_preempted'))
            hook.save_preempted(runner)
            raise InterruptedError


def train(work_dir, stop, workers, **kwargs):
    cfg = Config(
        dict(
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=BATCH,
                num_workers=workers,
                persistent_workers=workers > 0,
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            default_hooks=dict(logger=None),
            **kwargs,
        )
    )
    tolerate_faults(cfg)
    cfg.model = None
    options = {key: cfg[key] for key in cfg if key != 'model'}
    options['train_dataloader']['dataset'] = Noise()
    options['custom_hooks'] = [*options['custom_hooks'], stop]
    name = f'{work_dir.name}-{workers}-{len(kwargs)}-{stop.at}'
    runner = Runner(model=Noisy(), experiment_name=name, **options)
    runner.train()
    return runner


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('at', [6, 9])
def test_a_resumed_run_sees_the_same_batches_and_ends_with_the_same_weights(tmp_path, workers, at):
    whole = Stop()
    # No seed in the config: the one that was drawn is in the checkpoint.
    reference = train(tmp_path / 'whole', whole, workers, randomness=dict(seed=None))
    first = Stop(at)
    seed = dict(randomness=dict(seed=reference.seed))
    with pytest.raises(InterruptedError):
        train(tmp_path / 'cut', first, workers, **seed)
    rest = Stop()
    name = 'preempted.pth'
    resumed = train(
        tmp_path / 'cut', rest, workers, resume=True, load_from=str(tmp_path / 'cut' / name)
    )
    both = first.seen + rest.seen
    assert [(i, j) for i, j, _ in both] == [(i, j) for i, j, _ in whole.seen]
    assert all(torch.equal(one[2], other[2]) for one, other in zip(both, whole.seen, strict=True))
    assert torch.equal(resumed.model.weight, reference.model.weight)


def test_random_numbers_differ_between_epochs(tmp_path):
    whole = Stop()
    train(tmp_path, whole, 1)
    rows = torch.cat([data for *_, data in whole.seen])[:, 1:]
    assert len(rows.unique(dim=0)) == 3 * IMAGES


def test_random_numbers_differ_between_ranks_and_iterations():
    drawn = set()
    for rank in range(2):
        for iteration in range(2):
            seed_generators(0, rank, iteration)
            drawn.add((random.random(), np.random.rand(), torch.rand(1).item()))
    assert all(len({numbers[i] for numbers in drawn}) == 4 for i in range(3))

"""Exact resuming: a resumed run ends as if it had not been interrupted, on the CPU bit for bit."""

import random
from bisect import bisect
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import all_reduce_params, get_rank
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmfish.registry import HOOKS, LOOPS

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def seed_generators(seed: int, rank: int, iteration: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators for one iteration of one rank."""
    sequence = np.random.SeedSequence((seed, rank, iteration))
    python, torchs, *numpys = (int(word) for word in sequence.generate_state(6))
    random.seed(python)
    np.random.seed(numpys)
    torch.manual_seed(torchs)


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop``, which can also resume in the middle of an epoch.

    It loads the batches again that the epoch has had, without training on them: this brings the
    random augmentation in the workers to where it was. Needs a `ResumeHook`.

    Attributes:
        epoch_start: the number of iterations before the current epoch.
    """

    epoch_start = 0

    def run_epoch(self) -> None:
        """Train for the rest of the epoch."""
        self.batches_done = self.iter - self.epoch_start
        super().run_epoch()
        self.epoch_start = self.iter

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Train on a batch, unless the run that is resumed has done so.

        Args:
            idx: number of the batch within the epoch, from 0.
            data_batch: what the data loader gave.
        """
        if idx < self.batches_done:
            # In the uninterrupted run the hook did this after each iteration.
            seed_generators(self.runner.seed, get_rank(), self.epoch_start + idx + 1)
        else:
            super().run_iter(idx, data_batch)

    def evaluate_if_due(self) -> None:
        """Evaluate the epoch that the run was resumed after, if the config wants it evaluated."""
        interval = self.dynamic_intervals[bisect(self.dynamic_milestones, self.epoch + 1) - 1]
        due = self.epoch % interval == 0 or self.epoch == self.max_epochs
        if self.runner.val_loop is not None and self.epoch >= self.val_begin and due:
            self.runner.val_loop.run()


@HOOKS.register_module()
class ResumeHook(Hook):
    """Make all random numbers of a run depend on its seed, the rank and the iteration alone.

    Saving the states of the generators would not be enough: rank 0 alone writes checkpoints, the
    workers that load data have generators of their own, and MMEngine seeds these in the same way
    in every epoch. The position within the epoch is saved with each checkpoint, for
    `ResumableTrainLoop`.
    """

    priority = 'LOWEST'  # after other hooks, which may draw random numbers

    def __init__(self) -> None:
        self.loaded: dict = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the position that the checkpoint was written at."""
        self.loaded = checkpoint.get('meta', {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the position within the epoch."""
        meta, loop = checkpoint['meta'], runner.train_loop
        if isinstance(loop, ResumableTrainLoop):
            # A checkpoint that is written at the end of an epoch has the next epoch's number.
            within = meta['epoch'] == runner.epoch
            meta['batches_done'] = meta['iter'] - loop.epoch_start if within else 0
            meta['batches'] = len(loop.dataloader)

    def before_run(self, runner: Runner) -> None:
        """Let PyTorch seed the workers, instead of MMEngine.

        PyTorch draws new seeds in each epoch, from the generator that this hook seeds.
        """
        loader = runner.train_dataloader
        seeding = getattr(loader, 'worker_init_fn', None)
        if isinstance(seeding, partial) and seeding.func is worker_init_fn:
            loader.worker_init_fn = None

    def before_train(self, runner: Runner) -> None:
        """Take the seed and the position from the checkpoint, and evaluate its epoch if due."""
        loop, loader = runner.train_loop, runner.train_dataloader
        # The samplers were built before the seed was read from the checkpoint.
        batch_sampler = getattr(loader, 'batch_sampler', None)
        for sampler in (getattr(owner, 'sampler', None) for owner in (loader, batch_sampler)):
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed
        if not isinstance(loop, ResumableTrainLoop):
            return
        done = self._batches_done(runner)
        loop.epoch_start = runner.iter - done
        if runner.epoch and not done:
            # The run may have been stopped in the evaluation that follows the checkpoint.
            loop.evaluate_if_due()

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed the generators that the order of the images and the workers' seeds come from."""
        loop = runner.train_loop
        start = loop.epoch_start if isinstance(loop, ResumableTrainLoop) else runner.iter
        seed_generators(runner.seed, get_rank(), start)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Seed the generators for the next iteration."""
        seed_generators(runner.seed, get_rank(), runner.iter + 1)

    def _batches_done(self, runner: Runner) -> int:
        if self.loaded.get('iter') != runner.iter:
            return 0  # the run starts from the weights of a checkpoint, and is not resumed
        done, batches = self.loaded.get('batches_done', 0), self.loaded.get('batches')
        if done and batches != len(runner.train_dataloader):
            runner.logger.warning(
                f'The interrupted epoch begins anew: it was stopped after {done} of {batches} '
                'batches, and with another number of ranks or images it now has '
                f'{len(runner.train_dataloader)}.'
            )
            return 0
        if done:
            runner.logger.info(f'Going on after {done} of the {batches} batches of the epoch.')
        return done


@HOOKS.register_module()
class AverageStatisticsHook(Hook):
    """Give all ranks the same BatchNorm statistics before they are saved or used in evaluation.

    In training each rank has statistics of its own. MMEngine's ``SyncBuffersHook`` averages all
    buffers, and thereby rounds those that are fixed; this hook averages those that learn.
    """

    def __init__(self) -> None:
        self.trained = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Average, if a checkpoint is written after this iteration."""
        self.trained = True
        if any(self._saves_now(hook, runner) for hook in runner.hooks):
            self._average(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Average, before the checkpoint of the epoch is written."""
        self._average(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Average, if the model has been trained since it was done last."""
        self._average(runner)

    def _saves_now(self, hook: Hook, runner: Runner) -> bool:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch:
            return False
        due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        return due or (hook.save_last and hook.is_last_train_iter(runner))

    def _average(self, runner: Runner) -> None:
        if not self.trained:
            return
        self.trained = False
        learning = [
            module
            for module in runner.model.modules()
            if isinstance(module, BATCH_NORMS)
            and module.training
            and module.running_mean is not None
        ]
        statistics = [s for bn in learning for s in (bn.running_mean, bn.running_var)]
        if statistics:
            all_reduce_params(statistics, op='mean')

"""Resuming such that a run ends as if it had never been interrupted, bit by bit on the CPU."""

import random
from functools import partial

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import all_reduce_params, get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmfish.registry import HOOKS, LOOPS


def seed_generators(seed: int, rank: int, iteration: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators for one iteration of one rank."""
    sequence = np.random.SeedSequence((seed, rank, iteration))
    python, torchs, *numpys = (int(word) for word in sequence.generate_state(6))
    random.seed(python)
    np.random.seed(numpys)
    torch.manual_seed(torchs)


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop``, which can go on in the middle of an epoch.

    The batches that the epoch has had are loaded once more and left out: that is what brings the
    workers' random augmentation to where it was. Needs a `ResumeHook`.

    Attributes:
        epoch_start: the number of iterations before the current epoch.
    """

    epoch_start = 0

    def run_epoch(self) -> None:
        """Train for the rest of the epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._iter - self.epoch_start
        if done < len(self.dataloader):
            for index, batch in enumerate(self.dataloader):
                if index < done:
                    # In the uninterrupted run the hook did this after each iteration.
                    seed_generators(self.runner.seed, get_rank(), self.epoch_start + index + 1)
                else:
                    self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self.epoch_start = self._iter

    def evaluate_if_due(self) -> None:
        """Evaluate the epoch that the run was resumed after, unless the config leaves it out."""
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.val_loop.run()


@HOOKS.register_module()
class ResumeHook(Hook):
    """Make what is random in a run a function of its seed, the rank and the iteration alone.

    Saving the states of the generators would not do: a checkpoint is rank 0's, the workers that
    load data have their own, and MMEngine gives these the same seed in every epoch. The position
    within the epoch is saved with each checkpoint, for `ResumableTrainLoop`.
    """

    priority = 'LOWEST'  # after all that is random in other hooks

    def __init__(self) -> None:
        self.loaded: dict = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what is needed to go on from there."""
        self.loaded = checkpoint.get('meta', {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the position within the epoch."""
        meta, loop = checkpoint['meta'], runner.train_loop
        if isinstance(loop, ResumableTrainLoop):
            # A checkpoint at the end of an epoch has the number of the next one.
            within = meta['epoch'] == runner.epoch
            meta['batches_done'] = meta['iter'] - loop.epoch_start if within else 0
            meta['batches'] = len(loop.dataloader)

    def before_run(self, runner: Runner) -> None:
        """Leave the seeds of the workers to PyTorch.

        It draws them, anew in each epoch, from the generator that is seeded here.
        """
        loader = runner.train_dataloader
        seeding = getattr(loader, 'worker_init_fn', None)
        if isinstance(seeding, partial) and seeding.func is worker_init_fn:
            loader.worker_init_fn = None

    def before_train(self, runner: Runner) -> None:
        """Take up the seed and the position of the checkpoint, and evaluate its epoch if due."""
        loop, loader = runner.train_loop, runner.train_dataloader
        # The samplers were built before the seed was read from the checkpoint.
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            if hasattr(sampler, 'seed'):
                sampler.seed = runner.seed
        if not isinstance(loop, ResumableTrainLoop):
            return
        done = self._batches_done(runner)
        loop.epoch_start = runner.iter - done
        if runner.epoch and not done:
            # It may have been stopped in the evaluation that follows the checkpoint.
            loop.evaluate_if_due()

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed what is drawn before the first iteration: the order, the seeds of the workers."""
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
        """Seed what is drawn up to the end of the next iteration."""
        seed_generators(runner.seed, get_rank(), runner.iter + 1)

    def _batches_done(self, runner: Runner) -> int:
        if self.loaded.get('iter') != runner.iter:
            return 0  # the weights were loaded, but the run was not resumed
        done, batches = self.loaded.get('batches_done', 0), self.loaded.get('batches')
        if done and batches != len(runner.train_dataloader):
            runner.logger.warning(
                f'The epoch begins anew: it had {done} of {batches} batches, and now, with another '
                f'number of ranks or images, there are {len(runner.train_dataloader)}.'
            )
            return 0
        if done:
            runner.logger.info(f'Going on after {done} of the {batches} batches of the epoch.')
        return done


@HOOKS.register_module()
class AverageStatisticsHook(Hook):
    """Give all ranks the same BatchNorm statistics before they are saved or used in evaluation.

    In training each rank keeps its own. MMEngine's ``SyncBuffersHook`` averages every buffer, which
    rounds those that are fixed.
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
        """Note that the ranks may differ."""
        self.trained = True

    def after_train_epoch(self, runner: Runner) -> None:
        """Average, before the checkpoint is written."""
        self._average(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Average, if the evaluation is not at the end of an epoch."""
        self._average(runner)

    def _average(self, runner: Runner) -> None:
        if self.trained:
            learning = [
                module
                for module in runner.model.modules()
                if isinstance(module, _BatchNorm)
                and module.training
                and module.running_mean is not None
            ]
            statistics = [s for bn in learning for s in (bn.running_mean, bn.running_var)]
            if statistics:
                all_reduce_params(statistics, op='mean')
        self.trained = False

"""Stopping all ranks of a run: on a signal with the state saved, or when the loss is NaN or Inf."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from mmengine.dist import all_reduce, barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmfish.engine.fault_tolerance.saving import AtomicCheckpointHook, describe_last_checkpoint
from mmfish.errors import TrainingError
from mmfish.registry import HOOKS

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))
# From linux/prctl.h.
PR_SET_PDEATHSIG = 1
# EX_TEMPFAIL of sysexits.h: a temporary failure, try again.
PREEMPTED_STATUS = 75
# This file in the work directory tells tools/slurm_train.sh that a signal has ended the run.
STOPPED_FILE = 'stopped_on_request'


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """After the block, however it ends, signals are handled as before it."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


@HOOKS.register_module()
class StopHook(Hook):
    """Stop all ranks after the same iteration: on SIGTERM or SIGUSR1, or if a loss is NaN or Inf.

    Train within `signal_handlers_kept`, because nothing tells a hook that a training has failed.

    When any rank gets a signal, rank 0 saves the state of the run and all ranks exit with status
    75; ``--resume`` goes on from there. A signal during an evaluation ends the run at once if the
    weights that are evaluated have been saved; the resumed run starts with that evaluation.
    A loss that is NaN or Inf ends the run with an error that names the iteration, the images and
    the last good checkpoint. The ranks agree on this by one reduction of two numbers per iteration.
    """

    priority = 'LOWEST'  # after CheckpointHook, which may save in the same iteration

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        if is_main_process():
            Path(runner.work_dir, STOPPED_FILE).unlink(missing_ok=True)
        for loop in (runner.train_loop, runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if isinstance(loader, DataLoader):  # a loop of somebody else's may have another one
                loader.worker_init_fn = partial(_end_with_rank, before=loader.worker_init_fn)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Stop if any rank has to.

        Raises:
            TrainingError: on the ranks whose loss is NaN or Inf.
            SystemExit: on the other ranks then, or on all ranks after a signal.
        """
        invalid = {
            name: value
            for name, value in (outputs or {}).items()
            if 'loss' in name and not torch.isfinite(torch.as_tensor(value)).all()
        }
        stop = torch.tensor([self.received is not None, bool(invalid)], dtype=torch.int32)
        all_reduce(stop, op='max')
        if invalid:
            raise TrainingError(_describe_loss(runner, invalid, data_batch))
        requested, diverged = stop.tolist()
        if diverged:
            raise SystemExit(1)
        if requested:
            self._save(runner)
            self._exit(runner)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: list | None = None,
    ) -> None:
        """Stop an evaluation after a signal: there may be no time to finish it.

        Raises:
            SystemExit: this rank got a signal, and the weights have been saved.
        """
        hook = _checkpoint_hook(runner)
        if self.received and hook and hook.saved_iter == runner.iter:
            self._exit(runner)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def _save(self, runner: Runner) -> None:
        hook = _checkpoint_hook(runner)
        if hook and hook.saved_iter != runner.iter + 1:
            hook.save_preempted(runner)
        # Slurm and torchrun end the job as soon as one rank has ended.
        barrier()

    def _exit(self, runner: Runner) -> None:
        why = f'got {self.received.name}' if self.received else 'another rank was told to stop'
        last = describe_last_checkpoint(runner.work_dir)
        runner.logger.warning(f'Stopping: rank {get_rank()} {why}; {last}, go on with --resume.')
        Path(runner.work_dir, STOPPED_FILE).touch()
        raise SystemExit(PREEMPTED_STATUS)


def _end_with_rank(worker: int, before: Callable[[int], None] | None) -> None:
    """In a process that loads data: end when its rank ends, and ignore signals from elsewhere.

    Slurm sends a signal to all processes of a job, but a rank needs its workers until it has saved
    its state. A worker that outlives a killed rank keeps the rank's connections open, so that the
    other ranks wait for it. Both concern clusters: on other systems than Linux nothing is changed.
    """
    if before:
        before(worker)
    if sys.platform != 'linux':
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def wait() -> None:
        while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _checkpoint_hook(runner: Runner) -> AtomicCheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)


def _describe_loss(runner: Runner, invalid: dict[str, torch.Tensor], data_batch: object) -> str:
    losses = ', '.join(f'{name} {float(value)}' for name, value in invalid.items())
    samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
    images = ', '.join(str(sample.get('img_path')) for sample in samples if 'img_path' in sample)
    last = describe_last_checkpoint(runner.work_dir)
    return (
        f'Rank {get_rank()} stopped in iteration {runner.iter + 1}, epoch {runner.epoch + 1}: '
        f'{losses} for the images {images or "of unknown names"}; {last}: look at these images '
        'and their annotations or lower the learning rate, and go on with --resume'
    )

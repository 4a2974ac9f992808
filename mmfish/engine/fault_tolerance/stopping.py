"""When a run has to stop: on request, and when there is nothing left to learn from."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType

import torch
from mmengine.dist import all_reduce, barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmfish.engine.fault_tolerance.saving import WholeCheckpointHook, last_good
from mmfish.errors import TrainingError
from mmfish.registry import HOOKS

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# linux/prctl.h
PR_SET_PDEATHSIG = 1
# sysexits.h: a temporary failure, try again.
PREEMPTED_STATUS = 75
# A file in the work directory that is there after such a stop, for tools/slurm_train.sh.
MARK = 'stopped_on_request'


@HOOKS.register_module()
class StopHook(Hook):
    """Stop all ranks after the same iteration: on SIGTERM or SIGUSR1, or on a loss that is NaN.

    A signal to any rank makes all of them save the state of the run and exit with status 75;
    ``--resume`` goes on from there. A signal during an evaluation ends the run at once if the
    weights that are evaluated have been saved; the evaluation is made up for after resuming.
    A loss that is NaN or infinite ends the run with the iteration, the images and the last good
    checkpoint. The ranks agree on this with one reduction of two numbers per iteration.
    """

    priority = 'LOWEST'  # after the checkpoint that may be due in the same iteration

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        if is_main_process():
            Path(runner.work_dir, MARK).unlink(missing_ok=True)
        loops = (runner.train_loop, runner.val_loop)
        for loader in (loop.dataloader for loop in loops if loop):
            loader.worker_init_fn = partial(_obey_parent_only, before=loader.worker_init_fn)
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def after_train(self, runner: Runner) -> None:
        """Leave the process as it was."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Stop if any rank has to.

        Raises:
            TrainingError: on the ranks whose loss is not a finite number.
            SystemExit: on the others, or on all after a signal.
        """
        invalid = {
            name: value
            for name, value in (outputs or {}).items()
            if 'loss' in name and not torch.isfinite(torch.as_tensor(value)).all()
        }
        stop = torch.tensor([self.received is not None, bool(invalid)], dtype=torch.int32)
        all_reduce(stop, op='max')
        if invalid:
            raise TrainingError(_report(runner, invalid, data_batch))
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
        """Do not finish an evaluation for which there may be no time.

        Raises:
            SystemExit: this rank was told to stop.
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
        # Slurm and torchrun end the job when the first rank does.
        barrier()

    def _exit(self, runner: Runner) -> None:
        why = f'got {self.received.name}' if self.received else 'another rank was told to stop'
        runner.logger.warning(
            f'Stopping: rank {get_rank()} {why}; {last_good(runner.work_dir)}, go on with --resume.'
        )
        Path(runner.work_dir, MARK).touch()
        raise SystemExit(PREEMPTED_STATUS)


def _obey_parent_only(worker: int, before: Callable[[int], None] | None) -> None:
    """Let a process that loads data end with its rank, and of nothing that is sent to all.

    Slurm signals all processes of a job. Those that outlive a killed rank keep its connections
    open, so that the other ranks would wait for it.
    """
    if before:
        before(worker)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def wait() -> None:
        while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _checkpoint_hook(runner: Runner) -> WholeCheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, WholeCheckpointHook)), None)


def _report(runner: Runner, invalid: dict[str, torch.Tensor], data_batch: object) -> str:
    losses = ', '.join(f'{name} {float(value)}' for name, value in invalid.items())
    images = ', '.join(_image_names(data_batch)) or 'of unknown names'
    return (
        f'Rank {get_rank()} stopped in iteration {runner.iter + 1}, epoch {runner.epoch + 1}: '
        f'{losses} for the images {images}; {last_good(runner.work_dir)}: look at these images and '
        'their annotations or lower the learning rate, and go on with --resume'
    )


def _image_names(data_batch: object) -> Iterator[str]:
    samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
    for sample in samples:
        found = [str(sample.get(key)) for key in ('img_id', 'img_path') if key in sample]
        if found:
            yield ' '.join(found)

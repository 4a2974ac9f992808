"""Atomic checkpoints, and which one a run is resumed from."""

import contextlib
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmfish.atomic import PART, write_atomically
from mmfish.errors import CheckpointError, TrainingError
from mmfish.registry import HOOKS

# MMEngine's file that holds the path of the newest checkpoint.
POINTER = 'last_checkpoint'
PREEMPTED = 'preempted.pth'
# Checkpoints that a run can go on from. Those named best_* have no state of the optimiser.
_RESUMABLE = re.compile(rf'(?:epoch|iter)_\d+\.pth|{PREEMPTED}')


@register_backend('mmfish.atomic')
class AtomicFileBackend(LocalBackend):
    """MMEngine's backend for local files, with atomic writing and deferred removal.

    Files are written by `write_atomically`. MMEngine's ``CheckpointHook`` removes an outdated
    checkpoint before it writes the new one, so here `remove` and `rmtree` only take note of what
    `remove_outdated` is to remove.
    """

    def __init__(self) -> None:
        self.outdated: set[str] = set()

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes to a file."""
        write_atomically(filepath, obj)

    def remove(self, filepath: str | os.PathLike) -> None:
        """Note a file that is outdated."""
        self.outdated.add(str(filepath))

    def rmtree(self, dir_path: str | os.PathLike) -> None:
        """Note a folder that is outdated: a checkpoint with a file for each rank."""
        self.outdated.add(str(dir_path))

    def remove_outdated(self) -> None:
        """Remove what has been noted, and forget it."""
        for path in self.outdated:
            remove = super().rmtree if self.isdir(path) else super().remove
            with contextlib.suppress(FileNotFoundError):  # the user may have been faster
                remove(path)
        self.outdated.clear()


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with checkpoints that survive a kill and a full disk.

    It takes the same options and leaves the same files. What differs is how local files get there:
    they are written by `AtomicFileBackend`, and outdated checkpoints are removed after the new one
    has been written. Weights with NaN or Inf are not written at all. Other storage
    (``backend_args``, ``file_client_args`` or ``out_dir`` with a scheme such as ``s3://``) is used
    as MMEngine uses it.

    Attributes:
        saved_iter: the number of iterations behind the newest checkpoint; None before the first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        elsewhere = self.backend_args or self.file_client_args or '://' in str(self.out_dir)
        if not elsewhere:
            self.backend_args = dict(backend='mmfish.atomic')
        self.saved_iter: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Remove the half-written files that a killed run has left."""
        super().before_train(runner)
        self.saved_iter = runner.iter or None  # it is not 0 in a resumed run
        if is_main_process() and isinstance(self.file_backend, AtomicFileBackend):
            for part in Path(self.out_dir).glob(f'*{PART}'):
                part.unlink()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights.

        Raises:
            TrainingError: a weight is NaN or Inf.
        """
        for name, parameter in runner.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f'After iteration {checkpoint["meta"]["iter"]} the weights are NaN or Inf '
                    f'({name}), so no checkpoint was written; '
                    f'{describe_last_checkpoint(runner.work_dir)}'
                )

    def after_train_epoch(self, runner: Runner) -> None:
        """Save a checkpoint if one is due after this epoch."""
        with self._replacing_outdated(runner, runner.iter):
            super().after_train_epoch(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | tuple | list | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Save a checkpoint if one is due after this iteration."""
        with self._replacing_outdated(runner, runner.iter + 1):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save a checkpoint if it is the best one so far."""
        with self._replacing_outdated(runner, runner.iter):
            super().after_val_epoch(runner, metrics)

    def save_preempted(self, runner: Runner) -> None:
        """Save the state of the run after the current iteration, for a run that has to stop."""
        iteration = runner.iter + 1
        with self._failure_reported(runner, iteration):
            runner.save_checkpoint(
                self.out_dir,
                PREEMPTED,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=dict(epoch=runner.epoch, iter=iteration),
                by_epoch=False,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                path = self.file_backend.join_path(self.out_dir, PREEMPTED)
                write_atomically(Path(runner.work_dir, POINTER), path.encode())

    @contextlib.contextmanager
    def _replacing_outdated(self, runner: Runner, iteration: int) -> Iterator[None]:
        """Remove outdated checkpoints when the block, which may write a new one, has succeeded."""
        before = self.last_ckpt
        with self._failure_reported(runner, iteration):
            yield
        saved = self.last_ckpt != before
        if saved:
            self.saved_iter = iteration
        if saved and is_main_process():
            preempted = self.file_backend.join_path(self.out_dir, PREEMPTED)
            if self.file_backend.isfile(preempted):
                self.file_backend.remove(preempted)
        if is_main_process() and isinstance(self.file_backend, AtomicFileBackend):
            self.file_backend.remove_outdated()

    @contextlib.contextmanager
    def _failure_reported(self, runner: Runner, iteration: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f'The checkpoint after iteration {iteration} could not be written to '
                f'{self.out_dir} ({error.strerror or error}); '
                f'{describe_last_checkpoint(runner.work_dir)}: make room, or correct what is wrong '
                'there, and go on with --resume'
            ) from error


def newest_checkpoint(work_dir: Path) -> str | None:
    """What a run calls its newest checkpoint; None if it has written none.

    It may be '', because MMEngine does not write this file atomically: a kill or a full disk can
    leave it empty. And it may be where the run was before it was moved or copied.
    """
    pointer = work_dir / POINTER
    return pointer.read_text(errors='replace').strip('\0 \n') if pointer.is_file() else None


def describe_last_checkpoint(work_dir: str | os.PathLike) -> str:
    """A clause for messages that says which checkpoint a run can go on from."""
    candidates = _candidates(Path(work_dir))
    if not candidates:
        return 'there is no checkpoint yet'
    return f'the last good checkpoint is {candidates[0]}'


def checkpoint_to_resume(
    work_dir: str | os.PathLike, resume: str, quiet: bool = False
) -> str | None:
    """Find the checkpoint that a run goes on from, and check that it is complete.

    Args:
        work_dir: of the run.
        resume: 'auto' for the newest good checkpoint of the work directory, or the path of one.
        quiet: do not print which checkpoints are left out, and why.

    Returns:
        Its path; None if the run has written no checkpoint yet.

    Raises:
        CheckpointError: the checkpoint at the given path is damaged, or all of the work
            directory's are.
    """
    candidates = _candidates(Path(work_dir)) if resume == 'auto' else [resume]
    if candidates is None:
        return None
    problems = []
    for path in candidates:
        problem = None if '://' in path else checkpoint_problem(path)
        if not problem:
            for line in problems if not quiet else ():
                print(f'{line}. Going on from {path} instead.', file=sys.stderr, flush=True)
            return path
        problems.append(f'{path} cannot be resumed from: {problem}')
    if resume != 'auto':
        advice = 'Name another one, or none for the newest good one of the work directory'
    else:
        problems = problems or [f'{Path(work_dir, POINTER)} is empty']
        advice = 'No good checkpoint is left: train without --resume to start anew'
    raise CheckpointError(f'{"; ".join(problems)}. {advice}')


def checkpoint_problem(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file, found without loading it.

    `torch.load` does not verify the checksums in the file; this does.

    Args:
        path: of a file of `torch.save`, or of a folder of such files, one for each rank.

    Returns:
        A clause for messages; None if the file is complete and undamaged.
    """
    if os.path.isdir(path):
        found = [(file.name, checkpoint_problem(file)) for file in Path(path).iterdir()]
        return next((f'{name} in it: {problem}' for name, problem in found if problem), None)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    except Exception as error:  # zipfile raises half a dozen kinds for damaged entries
        size = os.path.getsize(path)
        return f'it is damaged, or not what torch.save writes ({error}; it has {size:,} bytes)'
    return f'it is damaged ({damaged} does not have its checksum)' if damaged else None


def _candidates(work_dir: Path) -> list[str] | None:
    """The checkpoints of a run from the newest to the oldest; None if it has written none."""
    newest = newest_checkpoint(work_dir)
    if newest is None:
        return None
    if '://' in newest:
        return [newest]
    first = [str(Path(newest))] if newest else []
    # Checkpoints are elsewhere with `out_dir`, or when the work directory has been moved.
    folders = [*(Path(path).parent for path in first), work_dir]
    files = [path for folder in folders for path in folder.glob('*.pth')]
    others = [path for path in files if _RESUMABLE.fullmatch(path.name)]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys([*first, *map(str, others)]))

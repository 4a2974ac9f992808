"""Checkpoints that are either whole or not there, and which one to resume from."""

import contextlib
import os
import re
import sys
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmfish.errors import CheckpointError, TrainingError
from mmfish.registry import HOOKS

# A file that is being written has this after its name.
PART = '.part'
# MMEngine's file with the path of the newest checkpoint.
POINTER = 'last_checkpoint'
PREEMPTED = 'preempted.pth'
# The names of whole states of a run, unlike best_*.pth, which has no optimiser.
_RESUMABLE = re.compile(rf'(?:epoch|iter)_\d+\.pth|{PREEMPTED}')


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that appears under its name only when all of it is on the disk.

    Args:
        path: of the file; one that is there stays until it is replaced.
        content: of the file.

    Raises:
        OSError: it could not be written; then nothing of it is left.
    """
    path = Path(path)
    part = path.with_name(path.name + PART)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    # The new name, too, has to survive a loss of power; not every network file system can do this.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


@register_backend('mmfish.whole')
class WholeFileBackend(LocalBackend):
    """MMEngine's local files, written as `write_whole` does."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes."""
        write_whole(filepath, obj)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, of which no kill and no full disk leaves half a file.

    A checkpoint is written beside its place and renamed, and only then are the outdated ones
    removed. One with weights that are not numbers is not written.

    Args:
        backend_args: where checkpoints go. Defaults to local files written as a whole.
        kwargs: those of MMEngine's hook.
    """

    def __init__(self, *args: Any, backend_args: dict | None = None, **kwargs: Any) -> None:
        remote = '://' in str(kwargs.get('out_dir') or '') or kwargs.get('file_client_args')
        if backend_args is None and not remote:
            backend_args = dict(backend='mmfish.whole')
        super().__init__(*args, backend_args=backend_args, **kwargs)
        # The number of iterations that the newest checkpoint has behind it.
        self.saved_iter: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed run left half-written."""
        super().before_train(runner)
        self.saved_iter = runner.iter or None  # not 0 means resumed
        if is_main_process() and '://' not in self.out_dir:
            for part in Path(self.out_dir).glob(f'*{PART}'):
                part.unlink()

    def save_preempted(self, runner: Runner) -> None:
        """Save the state after the iteration that has just ended, within an epoch."""
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        self._save(runner, PREEMPTED, meta, by_epoch=False)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0:
            ids = [number for number in self.keep_ckpt_ids if number != step] + [step]
            outdated = ids[: -self.max_keep_ckpts]
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
            # With the outdated ones: if the run is killed before they are gone, the resumed one
            # removes them when it starts.
            runner.message_hub.update_info('keep_ckpt_ids', ids)
        self._save(runner, self.filename_tmpl.format(step), meta, by_epoch=self.by_epoch)
        if is_main_process():
            names = [self.filename_tmpl.format(number) for number in outdated]
            for name in [*names, PREEMPTED]:
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):
                    # Those of some strategies of MMEngine's FlexibleRunner.
                    self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # MMEngine removes the best one so far before it writes the new one.
        backend, later = self.file_backend, _RemoveLater(self.file_backend)
        self.file_backend = later
        try:
            with self._failure_reported(runner, runner.iter):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        for path in set(later.paths) - {*best, getattr(self, 'best_ckpt_path', None)}:
            backend.remove(path)

    def _save(self, runner: Runner, filename: str, meta: dict, by_epoch: bool) -> None:
        iteration = meta['iter']
        self._check_weights(runner, iteration)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self._failure_reported(runner, iteration):
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_whole(Path(runner.work_dir, POINTER), self.last_ckpt.encode())
        self.saved_iter = iteration

    def _check_weights(self, runner: Runner, iteration: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, parameter in model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f'After iteration {iteration} the weights are no longer numbers '
                    f'({name}), so no checkpoint was written; {last_good(runner.work_dir)}'
                )

    @contextlib.contextmanager
    def _failure_reported(self, runner: Runner, iteration: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f'The checkpoint after iteration {iteration} could not be written to '
                f'{self.out_dir} ({error.strerror or error}); {last_good(runner.work_dir)}: make '
                'room, or put right what is wrong there, and go on with --resume'
            ) from error


class _RemoveLater:
    """A file backend that only notes what it is to remove."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.paths.append(path)


def last_good(work_dir: str | os.PathLike) -> str:
    """A clause that says which checkpoint a run can go on from, for messages."""
    path = _pointed_at(Path(work_dir))
    return f'the last good checkpoint is {path}' if path else 'there is no checkpoint yet'


def checkpoint_to_resume(
    work_dir: str | os.PathLike, resume: str, quiet: bool = False
) -> str | None:
    """Find the checkpoint that a run goes on from, and that it is whole.

    Args:
        work_dir: of the run.
        resume: 'auto' for the newest good checkpoint of the work directory, or the path of one.
        quiet: do not print which are left out, and why.

    Returns:
        Its path; none if the run has written no checkpoint yet.

    Raises:
        CheckpointError: the named one is not whole, or of several none is.
    """
    if resume != 'auto':
        problem = None if '://' in resume else damage(resume)
        if problem:
            raise CheckpointError(
                f'{resume} cannot be resumed from: {problem}. Name another one, or none for the '
                'newest good one of the work directory'
            )
        return resume
    newest = _pointed_at(Path(work_dir))
    if newest is None or '://' in str(newest):
        return newest and str(newest)
    # They differ with out_dir, or when the folder has been moved.
    folders = (newest.parent, Path(work_dir))
    files = [path for folder in folders for path in folder.glob('*.pth')]
    others = [path for path in files if _RESUMABLE.fullmatch(path.name)]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    problems = []
    for path in dict.fromkeys([newest, *others]):
        problem = damage(path)
        if not problem:
            for line in problems if not quiet else ():
                print(f'{line}. Going on from {path} instead.', file=sys.stderr, flush=True)
            return str(path)
        problems.append(f'{path} cannot be resumed from: {problem}')
    raise CheckpointError(
        f'{"; ".join(problems)}. No good checkpoint is left: train without --resume to start anew'
    )


def damage(path: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint file, found without loading it.

    `torch.load` does not look at the checksums in the file; this does.

    Args:
        path: of a file of `torch.save`, or of a folder of such files, one for each rank.

    Returns:
        A clause for messages; none if the file is whole.
    """
    if os.path.isdir(path):
        found = [(file.name, damage(file)) for file in Path(path).iterdir()]
        return next((f'{name} in it: {problem}' for name, problem in found if problem), None)
    try:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            start = file.read(4)
        if start != b'PK\x03\x04':
            return f'it is not what torch.save writes ({size:,} bytes that begin with {start!r})'
        if not zipfile.is_zipfile(path):
            return f'it is truncated (its end is missing after {size:,} bytes)'
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith('/data.pkl') for name in archive.namelist()):
                return 'it is a zip file, but not one of torch.save'
            damaged = archive.testzip()
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    except Exception as error:  # zipfile raises half a dozen kinds for damaged entries
        return f'it is damaged ({error})'
    return f'it is damaged ({damaged} does not have its checksum)' if damaged else None


def _pointed_at(work_dir: Path) -> Path | str | None:
    try:
        path = (work_dir / POINTER).read_text().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return path if '://' in path else Path(path) if path else None

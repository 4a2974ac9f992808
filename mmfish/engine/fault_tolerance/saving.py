"""Atomic checkpoints, and which one a run is resumed from."""

import contextlib
import os
import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmfish.errors import CheckpointError, ConfigError, TrainingError
from mmfish.registry import HOOKS

# The name of a file that is still being written ends with this.
PART = '.part'
# MMEngine's file that holds the path of the newest checkpoint.
POINTER = 'last_checkpoint'
PREEMPTED = 'preempted.pth'
# Checkpoints that a run can go on from. Those named best_* have no state of the optimiser.
_RESUMABLE = re.compile(rf'(?:epoch|iter)_\d+\.pth|{PREEMPTED}')


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under another name, flush it to the disk, and rename it.

    Whenever the process is killed, there is either the complete new file or the old one.

    Args:
        path: of the file; folders that do not exist are made.
        content: of the file.

    Raises:
        OSError: the file could not be written. The old one is still there.
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
    # The new name has to survive a loss of power, too. Windows cannot open a folder, and some
    # network file systems cannot flush one.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@register_backend('mmfish.atomic')
class AtomicFileBackend(LocalBackend):
    """MMEngine's backend for local files, with atomic writing and deferred removal.

    Files are written by `write_atomically`. MMEngine's ``CheckpointHook`` removes an outdated
    checkpoint before it writes the new one, so here `remove` and `rmtree` only take note of what
    `remove_outdated` is to remove.
    """

    def __init__(self) -> None:
        self.outdated: list[str] = []

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """Write bytes to a file."""
        write_atomically(filepath, obj)

    def remove(self, filepath: str | os.PathLike) -> None:
        """Note a file that is outdated."""
        self.outdated.append(str(filepath))

    def rmtree(self, dir_path: str | os.PathLike) -> None:
        """Note a folder that is outdated: a checkpoint with a file for each rank."""
        self.outdated.append(str(dir_path))

    def remove_outdated(self, keep: Collection[str | None] = ()) -> None:
        """Remove what has been noted, except the paths in ``keep``, and forget it."""
        for path in dict.fromkeys(self.outdated):
            if path in keep:
                continue
            if self.isfile(path):
                super().remove(path)
            elif self.isdir(path):
                super().rmtree(path)
        self.outdated.clear()


# A config that an earlier version has written into a work directory has the second name.
@HOOKS.register_module(name=['AtomicCheckpointHook', 'WholeCheckpointHook'])
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
        self.loaded: dict = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says about the ones that it replaced."""
        self.loaded = checkpoint.get('meta', {})

    def before_train(self, runner: Runner) -> None:
        """Remove what a killed run has left: half-written files, and outdated checkpoints."""
        super().before_train(runner)
        self.saved_iter = runner.iter or None  # it is not 0 in a resumed run
        if is_main_process() and isinstance(self.file_backend, AtomicFileBackend):
            for part in Path(self.out_dir).glob(f'*{PART}'):
                part.unlink()
            if self.loaded.get('iter') == runner.iter:
                self.file_backend.outdated += self.loaded.get('outdated', [])
            self.file_backend.remove_outdated(keep=self._current())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at the weights, and add the names of the checkpoints that this one replaces.

        Raises:
            TrainingError: a weight is NaN or Inf.
        """
        meta = checkpoint['meta']
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, parameter in model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(
                    f'After iteration {meta["iter"]} the weights are NaN or Inf ({name}), so no '
                    f'checkpoint was written; {describe_last_checkpoint(runner.work_dir)}'
                )
        # Without a training there is no backend yet.
        if isinstance(getattr(self, 'file_backend', None), AtomicFileBackend):
            # A run that is killed before it has removed them leaves that to the resumed one.
            meta['outdated'] = list(self.file_backend.outdated)

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
            self.file_backend.remove_outdated(keep=self._current())

    def _current(self) -> list[str | None]:
        """The newest and the best checkpoints, which may have replaced some of the same name."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        return [self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best]

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


def check_fsdp_checkpoints(cfg: Config) -> None:
    """Refuse a training with FSDP on the CPU that would crash when it saves its first checkpoint.

    ``state_dict_cfg='full'`` of MMEngine's ``FSDPStrategy`` sets torch's ``offload_to_cpu``. Then
    torch 2.11 frees gathered weights that are on the CPU before it copies them, and the process
    ends with SIGSEGV. It does so without MMEngine and mmfish, too.

    Args:
        cfg: of a training.

    Raises:
        ConfigError: the config asks for that.
    """
    strategy = cfg.get('strategy') or {}
    device = (strategy.get('model_wrapper') or {}).get('device_id')
    on_cpu = not torch.cuda.is_available() or str(device).startswith('cpu')
    wanted = strategy.get('state_dict_cfg')
    if isinstance(wanted, dict):
        offloaded = (wanted.get('state_dict_config') or {}).get('offload_to_cpu')
    else:
        offloaded = wanted == 'full'
    if on_cpu and offloaded:
        raise ConfigError(
            f'strategy.state_dict_cfg={wanted!r} makes PyTorch crash on the CPU when a checkpoint '
            "is saved: use 'local' (a file for each rank), or for one file "
            "dict(state_dict_type='FULL_STATE_DICT', "
            "state_dict_config=dict(type='FullStateDictConfig', rank0_only=True), "
            "optim_state_dict_config=dict(type='FullOptimStateDictConfig', rank0_only=True))"
        )


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
    if resume != 'auto':
        problem = None if '://' in resume else checkpoint_problem(resume)
        if problem:
            raise CheckpointError(
                f'{resume} cannot be resumed from: {problem}. Name another one, or none for the '
                'newest good one of the work directory'
            )
        return resume
    candidates = _candidates(Path(work_dir))
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
    problems = problems or [f'{Path(work_dir, POINTER)} is empty']
    raise CheckpointError(
        f'{"; ".join(problems)}. No good checkpoint is left: train without --resume to start anew'
    )


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


def _candidates(work_dir: Path) -> list[str] | None:
    """The checkpoints of a run from the newest to the oldest; None if it has written none."""
    try:
        newest = (work_dir / POINTER).read_text(errors='replace').strip('\0 \n')
    except FileNotFoundError:
        return None
    if '://' in newest:
        return [newest]
    # MMEngine does not write the pointer atomically: a kill or a full disk can leave it empty.
    first = [str(Path(newest))] if newest else []
    # Checkpoints are elsewhere with `out_dir`, or when the work directory has been moved.
    folders = [*(Path(path).parent for path in first), work_dir]
    files = [path for folder in folders for path in folder.glob('*.pth')]
    others = [path for path in files if _RESUMABLE.fullmatch(path.name)]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return list(dict.fromkeys([*first, *map(str, others)]))

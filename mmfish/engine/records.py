"""What a run leaves so that others can judge its result without repeating it."""

import gzip
import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation import CocoMetric
from mmengine.device import get_device
from mmengine.dist import all_gather_object, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from mmpretrain.evaluation import Accuracy

from mmfish.atomic import atomic_file, write_atomically
from mmfish.checkpoints.loading import local_file
from mmfish.config.paths import dicts
from mmfish.engine.fault_tolerance.saving import newest_checkpoint
from mmfish.engine.machine import describe_machine
from mmfish.engine.metrics import ClassPredictions, failure_is_a_warning
from mmfish.errors import CheckpointError
from mmfish.registry import HOOKS, pretrained_cfg
from mmfish.stack import MODULES, folder

try:
    import resource
except ImportError:  # Windows
    resource = None

RECORD = 'run_record.json'
# The packages whose versions it has.
STATED = ('mmfish', *MODULES, 'numpy')
# Of files with predictions: `ClassPredictions`, and ``CocoMetric`` with what it converts itself.
ENDINGS = ('.csv', '.gt.json', '.bbox.json', '.segm.json')
# The schemes of MMEngine's that stand for addresses.
ADDRESSES = {'torchvision://': get_torchvision_models, 'open-mmlab://': get_external_models}


@HOOKS.register_module()
class RecordHook(Hook):
    """Write ``run_record.json``, and in the end the predictions, beside the log of a process.

    That is in ``<work_dir>/<time of the start>``. A training writes the record when it begins,
    after each of its validations and when it ends; a test when it ends. A validation outside of a
    training leaves none. Predictions are kept of a test and of the validation at the end of a
    training: ``CocoMetric``'s in COCO's results format, as ``predictions.bbox.json.gz`` and
    ``predictions.segm.json.gz``, and those that MMPretrain's ``Accuracy`` counts as
    ``predictions.csv.gz`` (`ClassPredictions`).

    The fields of the record:

    - ``kind``: 'training' or 'test'. ``name``: of the experiment, as MMEngine gives it.
    - ``command``. ``config``: its text. ``commit``: of mmfish, with '-dirty' where files differ
      from it; None where mmfish is not in its clone. ``versions``. ``machine``.
    - ``started``, ``seconds``: of this process alone. ``resumed_from``: a checkpoint, or None.
    - ``trained``: what was evaluated: ``done`` of ``of`` in its ``unit`` ('epoch' or 'iteration'),
      and the ``name`` of the experiment that trained it. None for weights that do not say.
    - ``metrics``: of the last evaluation. ``expected``: what `compare` makes of them.
    - ``predictions``, ``initial_weights``, ``checkpoint`` (the tested one, or the last one of a
      training): SHA-256 by file; None where there is no single file.
    - ``seed``. ``ranks``: the device of each and the peaks of its memory, in bytes.

    A record or predictions that cannot be written are a warning, and the run goes on.
    """

    def __init__(self) -> None:
        self.started = datetime.now(timezone.utc)
        self.clock = time.monotonic()
        self.gpu_memory = 0
        self.facts: dict[str, Any] = {}
        self.training = False
        self.trained: dict[str, Any] | None = None
        self.metrics: dict[str, Any] = {}
        self.added: list[ClassPredictions] = []
        self.folder: tempfile.TemporaryDirectory | None = None
        self.prefixes: dict[str, str] = {}  # of files with predictions: the names in the record
        self.earlier: dict[Path, int] = {}  # files of those names, and when they were written
        self.predictions: dict[str, str | None] = {}

    def before_run(self, runner: Runner) -> None:
        """Look at what may change while the run lasts."""
        if is_main_process():
            self.facts = dict(
                command=shlex.join(sys.argv),
                commit=_commit(),
                versions={
                    **{name: import_module(name).__version__ for name in STATED},
                    'python': platform.python_version(),
                },
                machine=describe_machine(),
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says of its training."""
        meta = checkpoint.get('meta') or {}
        unit, total = _schedule(runner)
        done = meta.get('iter' if unit == 'iteration' else 'epoch')
        if done is not None:
            self.trained = dict(unit=unit, done=done, of=total, name=meta.get('experiment_name'))

    def before_train(self, runner: Runner) -> None:
        """Write the record of a training that has no result yet."""
        self.training = True
        if is_main_process():
            self.facts['initial_weights'] = _hashes(_initial_weights(runner))
        self._note_training(runner)
        self._write(runner, 'training')

    def before_val(self, runner: Runner) -> None:
        """Have the predictions kept if the training is over."""
        # To ask another runner for its iterations would make it build the loop of a training.
        if self.training and runner.iter >= runner.max_iters:
            self._keep_predictions(runner.val_loop)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the record with the result so far."""
        if self.training:
            self._note_training(runner)
            self._finish(runner, 'training', runner.val_loop, metrics)

    def after_train(self, runner: Runner) -> None:
        """Write the record with the last checkpoint, and say how the result compares."""
        if is_main_process():
            last = newest_checkpoint(Path(runner.work_dir))
            if last:
                self.facts['checkpoint'] = _hashes([last])
        self._write(runner, 'training')
        self._report(runner)

    def before_test(self, runner: Runner) -> None:
        """Have the predictions kept."""
        self._keep_predictions(runner.test_loop)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the record."""
        if is_main_process() and runner.cfg.get('load_from'):
            self.facts['checkpoint'] = _hashes([runner.cfg.load_from])
        self._finish(runner, 'test', runner.test_loop, metrics)

    def after_test(self, runner: Runner) -> None:
        """Say how the result compares with what the config expects."""
        self._report(runner)

    def _after_iter(self, *args: Any, **kwargs: Any) -> None:
        # MMEngine's LoggerHook, whose turn is later, resets the peak whenever it logs.
        if torch.cuda.is_initialized():
            self.gpu_memory = max(self.gpu_memory, torch.cuda.max_memory_allocated())

    def _note_training(self, runner: Runner) -> None:
        unit, total = _schedule(runner)
        done = runner.iter if unit == 'iteration' else runner.epoch
        self.trained = dict(unit=unit, done=done, of=total, name=runner.experiment_name)

    def _keep_predictions(self, loop: BaseLoop) -> None:
        """Let metrics write predictions into a temporary folder, as ``CocoMetric`` does anyway."""
        evaluator = getattr(loop, 'evaluator', None)
        if type(evaluator) is not Evaluator:
            return  # others may give each of their metrics a data set of its own
        known = [m for m in evaluator.metrics if isinstance(m, CocoMetric | Accuracy)]
        if not known:
            return
        self.folder = tempfile.TemporaryDirectory(prefix='mmfish')
        for i, metric in enumerate(known):
            name = f'predictions{i or ""}'
            prefix = f'{self.folder.name}/{name}'
            if isinstance(metric, CocoMetric):
                metric.outfile_prefix = metric.outfile_prefix or prefix
                self.prefixes[metric.outfile_prefix] = name
            else:
                # Collected as for the metric itself, because machines may not share a folder.
                ways = dict(collect_device=metric.collect_device, collect_dir=metric.collect_dir)
                self.added.append(ClassPredictions(f'{prefix}.csv', **ways))
                evaluator.metrics.append(self.added[-1])
                self.prefixes[prefix] = name
        self.earlier = {file: file.stat().st_mtime_ns for file, _ in self._files()}

    def _finish(
        self, runner: Runner, kind: str, loop: BaseLoop, metrics: dict[str, float] | None
    ) -> None:
        """Compress the predictions, leave the evaluator as it was, and write the record."""
        self.metrics = dict(metrics or {})
        if self.folder:
            if is_main_process():
                with failure_is_a_warning('The predictions', runner.log_dir):
                    self._compress_predictions(Path(runner.log_dir))
            for metric in loop.evaluator.metrics.copy():
                if metric in self.added:
                    loop.evaluator.metrics.remove(metric)
                elif str(getattr(metric, 'outfile_prefix', '')).startswith(self.folder.name):
                    metric.outfile_prefix = None
            self.folder.cleanup()
            self.folder, self.prefixes, self.added = None, {}, []
        self._write(runner, kind)

    def _files(self) -> list[tuple[Path, str]]:
        """The files with predictions that there are, and their names in the record."""
        files = [
            (Path(prefix + ending), f'{name}{ending}.gz')
            for prefix, name in self.prefixes.items()
            for ending in ENDINGS
        ]
        return [(file, name) for file, name in files if file.is_file()]

    def _compress_predictions(self, folder: Path) -> None:
        for source, name in self._files():
            if self.earlier.get(source) == source.stat().st_mtime_ns:
                continue  # of another run that the user gave the same ``outfile_prefix``
            target = folder / name
            with (
                open(source, 'rb') as plain,
                atomic_file(target) as file,
                # Without name and time the same predictions have the same hash.
                gzip.GzipFile('', 'wb', compresslevel=6, fileobj=file, mtime=0) as packed,
            ):
                shutil.copyfileobj(plain, packed)
            self.predictions[name] = _sha256(target)

    def _write(self, runner: Runner, kind: str) -> None:
        ranks = all_gather_object(
            dict(
                device=torch.cuda.get_device_name() if get_device() == 'cuda' else get_device(),
                gpu_memory=self.gpu_memory or None,
                memory=_peak_memory(),
            )
        )
        if not is_main_process():
            return
        cfg = runner.cfg
        record = dict(
            kind=kind,
            name=runner.experiment_name,
            started=self.started.isoformat(timespec='seconds'),
            seconds=round(time.monotonic() - self.clock, 1),
            resumed_from=cfg.get('load_from') if cfg.get('resume') else None,
            trained=self.trained,
            metrics=self.metrics,
            expected=compare(cfg.get('expected_metrics') or {}, self.metrics),
            predictions=self.predictions,
            seed=runner.seed,
            ranks=ranks,
            **self.facts,
            config=cfg.pretty_text,
        )
        with failure_is_a_warning('The record of the run', runner.log_dir):
            text = json.dumps(record, indent=2, default=_plain)
            write_atomically(Path(runner.log_dir, RECORD), text.encode())

    def _report(self, runner: Runner) -> None:
        expected = runner.cfg.get('expected_metrics') or {}
        if expected and self.metrics:
            verdicts = compare(expected, self.metrics)
            found = [
                f'{name} {self.metrics.get(name)} ({low} to {high}): {verdicts[name]}'
                for name, (low, high) in expected.items()
            ]
            runner.logger.info(f'What the config expects: {"; ".join(found)}')


def compare(
    expected: Mapping[str, tuple[float, float]], metrics: Mapping[str, float]
) -> dict[str, str]:
    """Tell whether metrics are in the bands that a config expects them in.

    Args:
        expected: the config's ``expected_metrics``: the lowest and the highest value by the name of
            a metric.
        metrics: of an evaluation.

    Returns:
        For each of the expected ones 'within', 'below', 'above' or 'not measured'.
    """
    verdicts = {}
    for name, (low, high) in expected.items():
        value = metrics.get(name)
        if value is None:
            verdicts[name] = 'not measured'
        else:
            verdicts[name] = 'below' if value < low else 'above' if value > high else 'within'
    return verdicts


def _schedule(runner: Runner) -> tuple[str, int | None]:
    """The unit of a config's schedule, 'epoch' or 'iteration', and how many there are of it."""
    schedule = runner.cfg.get('train_cfg') or {}
    if 'max_iters' in schedule:
        return 'iteration', schedule['max_iters']
    return 'epoch', schedule.get('max_epochs')


def _initial_weights(runner: Runner) -> list[str]:
    """The checkpoints that a training starts from; a resumed one has started from them, too."""
    cfg = runner.cfg
    found = [pretrained_cfg(part.get('init_cfg')) for part in dicts(cfg.get('model'))]
    sources = [init_cfg['checkpoint'] for init_cfg in found if init_cfg]
    if cfg.get('load_from') and not cfg.get('resume'):
        sources.append(cfg.load_from)
    return list(dict.fromkeys(sources))


def _hashes(sources: list[str]) -> dict[str, str | None]:
    """SHA-256 of the files behind checkpoints that have been loaded."""
    hashes = {}
    for source in sources:
        address = source
        for scheme, addresses in ADDRESSES.items():
            if source.startswith(scheme):
                address = addresses().get(source.removeprefix(scheme), source)
        try:
            hashes[source] = _sha256(local_file(address))
        except (CheckpointError, OSError):  # in another scheme, or a folder with a file per rank
            hashes[source] = None
    return hashes


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _commit() -> str | None:
    clone = folder('mmfish').parent
    if not (clone / '.git').exists():
        return None
    command = ['git', '-C', str(clone), 'describe', '--always', '--dirty', '--abbrev=40']
    try:
        done = subprocess.run([*command, '--exclude=*'], capture_output=True, text=True)
    except OSError:  # no git
        return None
    return done.stdout.strip() or None


def _peak_memory() -> int | None:
    """The most memory that this process has had in use, in bytes; None on Windows."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else 1024 * peak


def _plain(value: Any) -> Any:
    """A metric as JSON has it: arrays and tensors as lists or numbers, other objects as text."""
    return value.tolist() if hasattr(value, 'tolist') else str(value)

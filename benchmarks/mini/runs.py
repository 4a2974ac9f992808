"""The runs of the plan, a process each, and the records of them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.complexity import build_model, complexity
from benchmarks.mini.components import LOOKED_AT
from benchmarks.mini.plan import RATES, SHAPES_SIZE, Run, search
from demo.logs import read_logs
from demo.shapes import make_shapes
from mmfish.atomic import write_atomically
from mmfish.engine.records import RECORD
from mmfish.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = Path(__file__).parent / 'configs'
RECORDS = Path(__file__).parent / 'records'
AP = ('coco/bbox_mAP', 'coco/segm_mAP')
# Seconds of an iteration, evaluations included, where no record tells them.
GUESS = 0.8

Records = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Folders:
    """Where things are.

    Attributes:
        nuclei: in COCO's layout (docs/convert-data.md).
        fashion_mnist: with the four gzipped files.
        work_dirs: for logs, checkpoints and the shapes.
        records: one JSON file for each run.
    """

    nuclei: Path
    fashion_mnist: Path
    work_dirs: Path
    records: Path


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """All records by the names of their runs."""
    files = sorted(folder.glob('*.json'))
    return {file.stem: json.loads(file.read_text(encoding='utf-8')) for file in files}


def found_rate(network: str, condition: str, records: Records) -> tuple[float, float] | None:
    """The rate with the highest AP of boxes and masks together; None before the search is over."""
    tried = {run.rate: records.get(run.name) for run in search(network, condition)}
    if None in tried.values():
        return None
    return max(tried, key=lambda rate: sum(tried[rate]['metrics'].get(name, 0) for name in AP))


def rate_of(run: Run, records: Records) -> tuple[float, float] | None:
    """A run's own rate or the one that was found; None without a search, or before it is over."""
    if run.rate is None and run.condition in RATES:
        return found_rate(run.network, run.condition, records)
    return run.rate


def seconds_for(run: Run, records: Records) -> float:
    """How long a run takes, by the records of others like it, or else by a guess."""
    like = [
        record['seconds'] / record['iterations']
        for record in records.values()
        if (record['network'], record['condition']) == (run.network, run.condition)
    ]
    return run.iterations * (median(like) if like else GUESS)


def carry_out(run: Run, folders: Folders, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Train, or go on with a training that was interrupted, and write its record.

    Args:
        run: of the plan.
        folders: where things are.
        more: settings beside those of the run, by dotted names.

    Returns:
        The record.

    Raises:
        UsageError: a run that it builds on has no record yet, or the training failed.
    """
    rate = rate_of(run, read_records(folders.records))
    if rate is None and run.condition in RATES:
        raise UsageError(
            f'{run.name}: its rate has not been found yet: run '
            f'`--only "{run.config}_*_rate*"` first'
        )
    if run.condition == 'pretrained' and not _weights(run, folders).is_file():
        # The record of its classifier may be older than the folder of its checkpoint.
        carry_out(Run(run.network, 'fashion-mnist'), folders)
    options = run.options(rate)
    work_dir = folders.work_dirs / run.name
    status, last_line = _train(run, folders, {**options, **(more or {})})
    # A training that diverges has no AP, and that is a result. The sentence that it ends with names
    # a loss that is nan or inf, or says that weights are.
    diverged = bool(status == 1 and re.search(r'\b(nan|inf)\b', last_line, re.IGNORECASE))
    if status and not diverged:
        raise UsageError(
            f'{run.name} has not finished (status {status}): {last_line} (all of it is in '
            f'{work_dir}/output.txt): the same command goes on from its last checkpoint, or remove '
            'the folder to start anew'
        )
    record = asdict(run) | dict(
        rate=rate,
        iterations=run.iterations,
        config=f'{run.config}.py',
        options=options,
        diverged=diverged,
        **measured(work_dir),
    )
    text = json.dumps(record, indent=1) + '\n'
    write_atomically(folders.records / f'{run.name}.json', text.encode())
    return json.loads(text)


def measured(work_dir: Path) -> dict[str, Any]:
    """What a training has left.

    Args:
        work_dir: of the training.

    Returns:
        ``metrics`` of the evaluation at the end, empty without one or without detections;
        ``curve``: iterations, seconds of training and AP at each evaluation; cost:
        ``seconds_per_iteration`` (median) and ``training_seconds`` (that times the iterations, so
        that no evaluation, resuming or other work is in it), both of CPU time, ``memory`` (peak, in
        bytes), ``parameters`` and ``macs`` (for 192x192) of detector and backbone; ``seconds`` by
        the clock, of all its processes, with evaluations; for the beginning, after
        0 and 100 iterations, the norm of the gradient (median of ten) and the standard deviation of
        each level. What there is none of is None.
    """
    training, evaluations = read_logs(work_dir)
    last = evaluations.get(max(training), {})
    pace = median(line['cpu_time'] for line in training.values())
    model = build_model(str(max(work_dir.glob('*/vis_data/config.py'))))
    whole, backbone = (complexity(part, (192, 192)) for part in (model, model.backbone))
    start = {}
    for i in LOOKED_AT:
        norms = [training.get(i + 1 + j, {}).get('grad_norm') for j in range(10)]
        start[f'gradient_norm_{i}'] = None if None in norms else median(norms)
        for name in (f'level{n}_scale' for n in range(4)):
            start[f'{name}_{i}'] = training.get(i + 1, {}).get(name)
    return dict(
        metrics={name: value for name, value in last.items() if '/' in name},
        top1=last.get('accuracy/top1'),
        curve=[
            dict(
                iteration=i,
                seconds=round(i * pace, 1),
                **{name: found[name] for name in AP if name in found},
            )
            for i, found in evaluations.items()
        ],
        seconds_per_iteration=round(pace, 4),
        training_seconds=round(max(training) * pace, 1),
        parameters=whole.parameters,
        macs=whole.macs,
        backbone_parameters=backbone.parameters,
        backbone_macs=backbone.macs,
        **start,
        **_process(work_dir),
    )


def _train(run: Run, folders: Folders, settings: dict[str, Any]) -> tuple[int, str]:
    """Run the process of a training; its exit status and the last line that it has printed."""
    work_dir = folders.work_dirs / run.name
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, '-m', 'mmfish', 'train', str(CONFIGS / f'{run.config}.py'), '--resume'),
        *('--work-dir', str(work_dir), '--data-root', str(_data(run, folders)), '--cfg-options'),
        *(f'{name}={value}'.replace(' ', '') for name, value in settings.items()),
    ]
    if run.condition == 'pretrained':
        command.append(f'model.backbone.init_cfg.checkpoint={_weights(run, folders)}')
    with open(work_dir / 'output.txt', 'w+', encoding='utf-8') as output:
        # One thread: two trainings fit side by side on two cores, and the CPU time of one thread
        # has none in it that threads spend waiting for each other.
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        output.seek(0)
        return done.returncode, output.read().strip().rpartition('\n')[2]


def _weights(run: Run, folders: Folders) -> Path:
    """The backbone that a run of condition B begins with."""
    return folders.work_dirs / f'fashion-mnist_{run.network}' / 'epoch_3.pth'


def _data(run: Run, folders: Folders) -> Path:
    if run.condition == 'fashion-mnist':
        return folders.fashion_mnist
    if run.data == 'nuclei':
        return folders.nuclei
    return make_shapes(folders.work_dirs / 'shapes', train=320, val=100, size=SHAPES_SIZE)


def _process(work_dir: Path) -> dict[str, Any]:
    """Commit, versions, machine, hashes of the weights that it began with, seconds and peak memory.

    All are from the records of mmfish itself, memory is in bytes.

    Of a resumed training they are those of the last process, the sum, and the highest peak.
    """
    files = sorted(work_dir.glob(f'*/{RECORD}'))
    records = [json.loads(file.read_text(encoding='utf-8')) for file in files]
    return dict(
        **{name: records[-1][name] for name in ('commit', 'versions', 'machine')},
        initial_weights=list(records[-1]['initial_weights'].values()),
        seconds=round(sum(record['seconds'] for record in records), 1),
        memory=max(record['ranks'][0]['memory'] for record in records),
    )

"""What runs of the report's experiments have come to: a file of records, a table and curves."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmpretrain.registry import MODELS

from benchmarks.complexity import parameter_count
from benchmarks.published import load_published
from demo.logs import read_logs, seconds_per_epoch
from demo.markdown import markdown_table
from mmfish.atomic import write_atomically
from mmfish.engine.records import RECORD
from mmfish.errors import MissingDataError


def records(work_dirs: Path, data: str) -> list[dict[str, Any]]:
    """Read what runs have logged.

    Args:
        work_dirs: the folder with a folder for each run, which is named after its config, and
            after the seed where there are several: ``<config>`` or ``<config>_seed<n>``.
        data: 'fashion_mnist', 'cifar10' or 'cifar100'.

    Returns:
        For each run with an evaluation: ``config``, ``seed``, ``epochs`` (done) and ``of``;
        ``parameters`` with BatchNorm's statistics; ``seconds`` of an epoch without evaluation,
        ``cpu_seconds`` likewise (`CPUTimeHook`), and ``loading``, the share that the images take
        until they are a batch; by epoch the training ``loss`` and ``training_accuracy``, and the
        test ``accuracy``, in %; ``commit``, ``versions`` and ``machine`` of the last process
        (`mmfish.engine.records.RecordHook`).

    Raises:
        MissingDataError: one has no ``run_record.json``.
    """
    found = []
    folders = [*work_dirs.glob(f'report_*_{data}'), *work_dirs.glob(f'report_*_{data}_seed*')]
    for folder in sorted(folders):
        training, evaluations = read_logs(folder)
        if not evaluations:
            continue
        cfg = Config.fromfile(max(folder.glob('*/vis_data/config.py')))
        with torch.device('meta'):
            model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
        seconds = seconds_per_epoch(folder)
        processes = [json.loads(path.read_text()) for path in folder.glob(f'*/{RECORD}')]
        if not processes:
            raise MissingDataError(
                f'{folder} has no {RECORD}, which tells on what and with what it was trained: '
                'train with tools/train.py, which writes it'
            )
        process = max(processes, key=lambda record: record['started'])
        time = _mean(training, 'time')
        found.append(
            dict(
                config=folder.name.rpartition('_seed')[0] or folder.name,
                seed=cfg.randomness.seed,
                epochs=max(evaluation['step'] for evaluation in evaluations.values()),
                of=cfg.train_cfg.max_epochs,
                parameters=parameter_count(model, statistics=True),
                seconds=round(seconds, 2),
                cpu_seconds=round(seconds * _mean(training, 'cpu_time') / time, 2),
                loading=round(_mean(training, 'data_time') / time, 3),
                loss=_by_epoch(training, 'loss'),
                training_accuracy=_by_epoch(training, 'accuracy_top-1'),
                accuracy=[e['accuracy/top1'] for _, e in sorted(evaluations.items())],
                **{name: process[name] for name in ('commit', 'versions', 'machine')},
            )
        )
    return found


def update_records(file: Path, work_dirs: Path, data: str) -> list[dict[str, Any]]:
    """Put the records of runs into a file, each in the place of one of its config and seed.

    Args:
        file: JSON, a line for each run; it need not exist.
        work_dirs: as for `records`; it may have no runs if the file has some.
        data: as for `records`.

    Returns:
        All that the file has now.

    Raises:
        MissingDataError: there are no runs in either, or one has no ``run_record.json``.
    """
    known = json.loads(file.read_text(encoding='utf-8')) if file.is_file() else []
    by_run = {(run['config'], run['seed']): run for run in [*known, *records(work_dirs, data)]}
    if not by_run:
        raise MissingDataError(
            f'there is no run with an evaluation in {work_dirs}: expected folders '
            f'report_*_{data}, which tools/train.py writes'
        )
    runs = [run for _, run in sorted(by_run.items())]
    lines = ',\n'.join(json.dumps(run) for run in runs)
    write_atomically(file, f'[\n{lines}\n]\n'.encode())
    return runs


def table(runs: Sequence[dict[str, Any]], data: str) -> str:
    """The accuracy after the last epoch beside the published one, in Markdown.

    Args:
        runs: from `records`. Those of one config that differ in the seed share a row, which has
            their mean and range.
        data: that of the runs.
    """
    rows = load_published()['tables']['Table 4 of the report']['rows']
    names = {config: row['name'] for row in rows for config in row['runs'] if data in config}
    published = {
        config: row['published'][1 + 2 * i : 3 + 2 * i]  # after the parameters two for each data
        for row in rows
        for i, config in enumerate(row['runs'])
    }
    cells = []
    for config in [*names, *sorted({run['config'] for run in runs} - names.keys())]:
        seeds = [run for run in runs if run['config'] == config]
        accuracy, seconds = published.get(config, ('', ''))
        name = names.get(config, f'`{config}`')
        if not seeds:
            cells.append([name, '', accuracy, 'not run', '', '', seconds, ''])
            continue
        last = [run['accuracy'][-1] for run in seeds]
        spread = f' ({min(last):.2f} to {max(last):.2f})' if len(last) > 1 else ''
        epochs = sorted({f'{run["epochs"]} of {run["of"]}' for run in seeds})
        cells.append(
            [
                name,
                f'{seeds[0]["parameters"]:,}',
                accuracy,
                f'{np.mean(last):.2f}{spread}',
                ', '.join(epochs),
                len(seeds),
                seconds,
                f'{np.mean([run["cpu_seconds"] for run in seeds]):.1f}',
            ]
        )
    heads = ['', 'parameters', 'published, %', 'measured, %', 'epochs', 'seeds']
    heads += ['published s/epoch', 'CPU s/epoch']
    return markdown_table(heads, [[str(cell) for cell in row] for row in cells], numbers=7)


def draw_curves(runs: Sequence[dict[str, Any]], labels: dict[str, str], out: Path) -> Path:
    """Draw the loss and the accuracy of runs against their epochs.

    Args:
        runs: from `records`; those of seed 0 are drawn.
        labels: of the configs to draw.
        out: the picture to write.

    Returns:
        ``out``.
    """
    figure = Figure(figsize=(9, 3.2), dpi=150, layout='constrained')
    losses, accuracies = figure.subplots(1, 2)
    for run in runs:
        if run['config'] in labels and run['seed'] == 0:
            label = labels[run['config']]
            losses.plot(range(1, len(run['loss']) + 1), run['loss'], label=label)
            epochs = range(1, len(run['accuracy']) + 1)
            (line,) = accuracies.plot(epochs, run['accuracy'], label=f'{label}, test')
            accuracies.plot(
                range(1, len(run['training_accuracy']) + 1),
                run['training_accuracy'],
                color=line.get_color(),
                linestyle='--',
                label=f'{label}, training',
            )
    losses.set(xlabel='epoch', ylabel='training loss')
    accuracies.set(xlabel='epoch', ylabel='accuracy, %')
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _mean(training: dict[int, dict[str, float]], name: str) -> float:
    return float(np.mean([scalars[name] for scalars in training.values()]))


def _by_epoch(training: dict[int, dict[str, float]], name: str) -> list[float]:
    values = defaultdict(list)
    for scalars in training.values():
        values[scalars['epoch']].append(scalars[name])
    return [round(float(np.mean(values[epoch])), 4) for epoch in sorted(values)]

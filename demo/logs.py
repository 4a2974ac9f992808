"""What runs have written: their records, and MMEngine's scalars."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmfish.engine.records import RECORD

Scalars = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Run:
    """What a run has come to.

    Attributes:
        name: of its config, and so of its work folder.
        metrics: of its last evaluation, by MMEngine's names; empty if there was none.
        state: in words: 'not run', 'epoch 12 of 32', 'weights from elsewhere: x.pth', ...
        finished: whether the metrics are those of the end of its own schedule.
    """

    name: str
    metrics: dict[str, float] = field(default_factory=dict)
    state: str = 'not run'
    finished: bool = False


def read_run(work_dir: Path) -> Run:
    """Read the last evaluation of a run from the records in its folder and in those below.

    That is the last evaluation of the newest training, or a later test of what was trained there,
    with at least as many epochs: the last one, as in the paper, not the best one. Tests of weights
    that were not trained there count only where nothing was.

    Args:
        work_dir: where `tools/train.py` and `tools/test.py` wrote; it need not be there.

    Returns:
        The run.
    """
    name = work_dir.name
    records = [json.loads(path.read_text(encoding='utf-8')) for path in work_dir.rglob(RECORD)]
    records.sort(key=lambda record: record['started'])
    trainings = [record for record in records if record['kind'] == 'training']
    names = {record['name'] for record in trainings}
    last = foreign = None
    for record in reversed(trainings):
        last = record
        # One that was resumed, and stopped before an evaluation, has the result of the one before.
        if record['metrics'] or not record['resumed_from']:
            break
    for record in records:
        trained = record['trained'] or dict(name='')
        if record['kind'] == 'training' or not record['metrics']:  # format_only
            continue
        if trained['name'] not in names and not str(trained['name']).startswith(f'{name}_'):
            foreign = record
        elif last is None or (
            record['started'] >= last['started'] and trained['done'] >= last['trained']['done']
        ):
            last = record

    if last is not None and not last['metrics']:
        return Run(name, state='not evaluated')
    if last is not None:
        done, total = last['trained']['done'], last['trained']['of']
        state = f'{last["trained"]["unit"]} {done} of {total}'
        return Run(name, last['metrics'], state, done == total)
    if foreign is not None:
        weights = ', '.join(Path(file).name for file in foreign['checkpoint'])
        return Run(name, foreign['metrics'], f'weights from elsewhere: {weights}')
    return Run(name)


def read_logs(work_dir: Path) -> tuple[Scalars, Scalars]:
    """Read MMEngine's ``*/vis_data/scalars.json``, of which a resumed run has several.

    Args:
        work_dir: where `tools/train.py` wrote; it need not be there.

    Returns:
        The training lines and the evaluations, each by iteration. The ``step`` of an evaluation is
        its epoch, or its iteration, as its runner counts.
    """
    training: Scalars = {}
    evaluations: Scalars = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        schedule = _config(log.parents[1]).get('train_cfg') or {}
        first = True
        for line in log.read_text(encoding='utf-8').splitlines():
            try:
                scalars = json.loads(line)
            except json.JSONDecodeError:
                continue  # half a line: the training was killed, or is writing it
            if 'loss' in scalars:
                iteration = scalars['iter']
                if first:
                    # What an earlier run did beyond the point of resuming was thrown away.
                    training = {i: s for i, s in training.items() if i < iteration}
                    evaluations = {i: s for i, s in evaluations.items() if i < iteration}
                    first = False
                training[iteration] = scalars
            elif any('/' in name for name in scalars):  # coco/bbox_mAP, accuracy/top1
                iteration = max([scalars['step'], *training])
                if 'max_iters' in schedule and not scalars['step']:
                    # Unless told to log by iteration, MMEngine writes step 0. It is the next one
                    # due, after what was logged last and after the evaluation before.
                    interval = schedule.get('val_interval', 1000)
                    after = max([iteration, *(1 + i for i in evaluations)])
                    iteration = min(-(-after // interval) * interval, schedule['max_iters'])
                    scalars['step'] = iteration
                evaluations[iteration] = scalars
    return training, evaluations


def seconds_per_epoch(work_dir: Path) -> float | None:
    """How long an epoch takes, with the loading of its data and without evaluation.

    Args:
        work_dir: of a training that counts epochs.

    Returns:
        The mean time of an iteration, times those of an epoch; None before the first evaluation.
    """
    training, evaluations = read_logs(work_dir)
    if not evaluations:
        return None
    last = max(evaluations)
    times = [scalars['time'] for scalars in training.values()]
    return sum(times) / len(times) * last / evaluations[last]['step']


def _config(folder: Path) -> Config:
    """The config that a run has written, as far as it was written."""
    path = folder / 'vis_data' / 'config.py'
    return Config.fromfile(path) if path.is_file() else Config()

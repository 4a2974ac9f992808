"""MMDetection's own zoo: which of its configs train and predict after `plug_in` and `own_data`.

Each config with a ResNet-like backbone is built, takes one training step with its own optimiser and
predicts, on a CPU; once as it is shipped and once for every other column of the table. Its images
are made up, or, with a data set of three classes, loaded and changed by its own pipelines. No
weights are downloaded but BERT's, for Grounding DINO. Fewer proposals and small images that are not
padded to a training's full size make it small enough for a CPU; nothing else is changed.
"""

import contextlib
import io
import json
import multiprocessing
import os
import re
import resource
import tempfile
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from benchmarks.data import data_set, loaded_inputs, write_data
from demo.markdown import markdown_table
from mmfish.config.levels import hosts, model_registry
from mmfish.config.own_data import own_data
from mmfish.config.paths import dicts
from mmfish.config.plug_in import has_resnet, plug_in
from mmfish.engine.inputs import TEXT, model_inputs
from mmfish.engine.trial import random_model
from mmfish.errors import UsageError
from mmfish.stack import folder

Outcomes = dict[str, str]  # by column: 'passed', 'refused, because ...' or an error

OWN_DATA = '3 classes'  # the column in which the images are those of a data set
# The columns: what is made of a config before it is tried, given an arch of FishNet and the folder
# of a data set.
COLUMNS: dict[str, Callable[[Config, str, str], Config]] = {
    'control': lambda cfg, arch, data: cfg,
    'FishNet': lambda cfg, arch, data: plug_in(cfg, arch),
    OWN_DATA: lambda cfg, arch, data: own_data(cfg, data),
}
# Pixels. What fails is tried with the next: small images are fast, but some heads need a coarsest
# level of more than a pixel or two.
SIZES = (128, 256, 384)
# What numbers of proposals, samples, and points of masks are lowered to.
LIMITS = dict(nms_pre=200, max_per_img=50, num_proposals=50, num=64, num_points=784)
# Of the optimiser's learning rate. It is that of the first step of a warm-up; random weights at the
# full rate can go far astray.
LR_FACTOR = 0.001
MEMORY = 16 << 30  # bytes that a process may take, so that the machine stays usable
ZOO = folder('mmdet') / '.mim' / 'configs'
PASSED, REFUSED = 'passed', 'refused, because '


def zoo_configs() -> Iterator[str]:
    """The paths, below MMDetection's ``configs``, of those with a ResNet-like backbone."""
    for path in sorted(ZOO.rglob('*.py')):
        name = path.relative_to(ZOO).as_posix()
        if name.startswith('common/') or '_base_' in path.parts:
            continue
        try:
            cfg = Config.fromfile(path)
        except (OSError, ImportError):  # it inherits from a file that is not shipped
            continue
        with model_registry(cfg) as registry:
            if any(has_resnet(chain[-1], registry) for chain in hosts(cfg).values()):
                yield name


def by_family(configs: Iterable[str]) -> dict[str, list[str]]:
    """Configs by their folder; those with a ResNet-50 first, and of these the shortest name."""
    families: dict[str, list[str]] = {}
    for config in sorted(configs, key=lambda name: ('r50' not in name, len(name), name)):
        families.setdefault(config.partition('/')[0], []).append(config)
    return dict(sorted(families.items()))


def try_model(cfg: Config, size: int = SIZES[0], *, load: bool = False) -> dict[str, Tensor]:
    """Build a model, do one training step and one prediction.

    Args:
        cfg: a config of MMDetection; not changed.
        size: height and width of the images, in pixels; about that if they are loaded.
        load: take the images of the config's data sets, through its pipelines, and evaluate the
            prediction as the config does. By default they are made up.

    Returns:
        The losses of the step; none for a config without an optimiser, which only predicts.

    Raises:
        Exception: whatever the model raises.
        FloatingPointError: a loss, or a weight after the step, is not finite.
        LookupError: the model did not return one prediction for each image.
    """
    register_all_modules()
    cfg = Config(cfg.to_dict())
    for part in dicts(cfg.model):
        part.pop('batch_augments', None)
        if load and 'score_thr' in part:
            part['score_thr'] = 0.0  # so that classes that are not there are predicted
        for key in LIMITS.keys() & part.keys():
            if isinstance(part[key], int) and part[key] > 0:
                part[key] = min(part[key], LIMITS[key])
    model = revert_sync_batchnorm(random_model(cfg))

    losses = {}
    if 'optim_wrapper' in cfg:  # trackers of parts that are trained apart have none
        # Mixed precision and its scaling need a GPU.
        options = {**cfg.optim_wrapper, 'type': 'OptimWrapper'}
        options = {k: v for k, v in options.items() if k not in ('loss_scale', 'dtype', 'use_fsdp')}
        options['optimizer'].lr *= LR_FACTOR
        batch = loaded_inputs(cfg, 'train', size) if load else model_inputs(cfg.model, size)
        losses = model.train().train_step(batch, build_optim_wrapper(model, options))
    for name, value in [*losses.items(), *model.named_parameters()]:
        if not value.isfinite().all():
            raise FloatingPointError(f'{name} is not finite after a training step')

    if load:
        batch = loaded_inputs(cfg, 'val', size)
    else:
        batch = model_inputs(cfg.model, size, images=1, training=False)
    with torch.no_grad():
        predictions = model.eval().test_step(batch)
    if load:  # fails at predictions of classes that are not there
        evaluator = Evaluator(cfg.val_evaluator)
        evaluator.dataset_meta = data_set(cfg, 'val').metainfo
        evaluator.process(predictions, batch)
        evaluator.evaluate(len(predictions))
    if len(predictions) != len(batch['data_samples']):
        raise LookupError(f'{len(predictions)} predictions for {len(batch["data_samples"])} images')
    return losses


def run_zoo(
    configs: Iterable[str], results: Path, *, arch: str = 'fishnet77', limit: float = 600
) -> dict[str, Outcomes]:
    """Try configs and keep what came out.

    Args:
        configs: paths below MMDetection's ``configs``.
        results: a file with one line of JSON per config and arch. Those in it are not tried again.
        arch: of `FishNet`.
        limit: seconds for a config and a column; what takes longer has failed.

    Returns:
        The outcomes of these configs and of all others in the file.
    """
    done = read_results(results, arch)
    results.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data:
        write_data(Path(data), TEXT, images=(2, 1), size=128)
        for config in configs:
            row = done.setdefault(config, {})
            missing = [column for column in COLUMNS if column not in row]
            if missing:
                row |= {name: _in_a_process(config, name, arch, data, limit) for name in missing}
                with results.open('a') as file:
                    file.write(json.dumps(dict(arch=arch, config=config, **row)) + '\n')
                print(config, *row.values(), sep=' | ', flush=True)
    return done


def read_results(results: Path, arch: str) -> dict[str, Outcomes]:
    """What `run_zoo` wrote for an arch, by the names of the configs."""
    if not results.is_file():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {
        line['config']: {column: line[column] for column in COLUMNS if column in line}
        for line in lines
        if line['arch'] == arch
    }


def zoo_tables(configs: Sequence[str], outcomes: Mapping[str, Outcomes]) -> dict[str, str]:
    """What came out, in Markdown, by the name of its place in docs/zoo.md.

    Args:
        configs: all that there are.
        outcomes: of some of them; those that lack a column are left out.
    """
    rows = {name: row for name, row in outcomes.items() if row.keys() == COLUMNS.keys()}
    tried = by_family(name for name in configs if name in rows)
    passed = {name for name, row in rows.items() if row['control'] == PASSED}
    # For each family its first config whose control passed, if there is one.
    first = [next((n for n in names if n in passed), names[0]) for names in tried.values()]
    families = {name: rows[name] for name in first}
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, row in rows.items():
        names[_reason(name, row)].append(name.removesuffix('.py'))
    names.pop('', None)
    reasons = sorted(names, key=lambda reason: -len(names[reason]))
    return {
        'counts': f'{_counts("families", families, len(by_family(configs)))} '
        f'{_counts("configs", rows, len(configs))}',
        'families': markdown_table(
            ['config', *COLUMNS, 'reason'],
            (
                [name.removesuffix('.py'), *map(_cell, row.values()), _reason(name, row)]
                for name, row in families.items()
            ),
        ),
        'reasons': markdown_table(
            ['reason', 'number', 'configs'],
            ([reason, str(len(names[reason])), ', '.join(names[reason])] for reason in reasons),
        ),
    }


def _counts(what: str, rows: Mapping[str, Outcomes], total: int) -> str:
    passed = [row for row in rows.values() if row['control'] == PASSED]
    words = [f'{len(rows)} of {total} {what} tried: {len(passed)} controls passed']
    for column in list(COLUMNS)[1:] if passed else ():
        cells = [_cell(row[column]) for row in passed]
        words.append(
            f'of these {cells.count(PASSED)} pass with {column} and {cells.count("refused")} are '
            'refused'
        )
    return f'**{", and ".join(words)}.**'


def _cell(outcome: str) -> str:
    if outcome == PASSED:
        return PASSED
    return 'refused' if outcome.startswith(REFUSED) else 'failed'


def _reason(config: str, row: Outcomes) -> str:
    """Which columns did not pass, and why; '' if all did. Equal reasons are equal texts."""
    columns: defaultdict[str, list[str]] = defaultdict(list)
    for column, outcome in row.items():
        columns[outcome].append(column)
    columns.pop(PASSED, None)
    reasons = (f'{" and ".join(names)}: {outcome}' for outcome, names in columns.items())
    text = '; '.join(reasons).replace(Path(config).name, 'the config')
    return text.replace('|', '\\|')


def _in_a_process(config: str, column: str, arch: str, data: str, limit: float) -> str:
    # Forked: what is imported stays imported, and what the config took goes with the process.
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, config, column, arch, data))
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(limit) else f'took more than {limit:.0f} s'
    except EOFError:
        process.join()
        return f'the process died (exit code {process.exitcode})'
    finally:
        process.kill()
        process.join()


def _report(sender: Connection, config: str, column: str, arch: str, data: str) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(ZOO.parent)  # some configs name their teacher's by a path from there
    torch.set_num_threads(1)  # others would be those of the process before the fork
    warnings.simplefilter('ignore')
    MMLogger.get_instance('zoo', log_level='ERROR')  # no lines about each initialised weight
    # As in a training on one GPU: mmcv's SyncBN asks for its group as soon as it is built.
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    with contextlib.redirect_stdout(io.StringIO()):  # what pycocotools prints
        outcome = _outcome(config, column, arch, data)
    sender.send(outcome)


def _outcome(config: str, column: str, arch: str, data: str) -> str:
    for size in SIZES:
        try:
            cfg = COLUMNS[column](Config.fromfile(ZOO / config), arch, data)
            try_model(cfg, size, load=column == OWN_DATA)
        except UsageError as error:
            return f'{REFUSED}{_without_folders(str(error))}'
        except Exception as error:  # whatever any of MMDetection's models may raise is a result
            last = traceback.extract_tb(error.__traceback__)[-1]
            first_line = str(error).strip().partition('\n')[0]
            text = _without_folders(f'{type(error).__name__}: {first_line}')[:200]
            outcome = f'{text} ({Path(last.filename).name}, {last.name})'
        else:
            return PASSED
    return outcome


def _without_folders(text: str) -> str:
    """A message without the absolute paths of this machine: of each the name alone."""
    return re.sub(r'(?<!\S)/\S*/', '', text)

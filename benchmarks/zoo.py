"""FishNet in MMDetection's own zoo: which of its configs train and predict after `plug_in`.

Each config with a ResNet-like backbone is tried twice, as shipped (the control) and with FishNet:
build, one training step with the config's own optimiser on two small made-up images with boxes,
masks and semantic maps, and one prediction. Weights are not downloaded. Numbers of proposals are
lowered for both, and batches not padded to a training's full size, so that a CPU can do it; nothing
else of the model is changed.
"""

import json
import multiprocessing
import os
import re
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample, ReIDDataSample, TrackDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from mmfish.config.paths import dicts
from mmfish.config.plug_in import plug_in, resnet_like
from mmfish.errors import UsageError
from mmfish.stack import folder

# Pixels. A config is tried at the first at which its control passes: small images are fast, but
# some heads need a coarsest level of more than a pixel or two.
SIZES = (128, 256, 384)
# Height and width for detectors of lanes, whose heads have them built in.
LANES = (320, 800)
# What numbers of proposals, samples, and points of masks are lowered to.
LIMITS = dict(nms_pre=200, max_per_img=50, num_proposals=50, num=64, num_points=784)
# Bytes that a process may take, so that the machine stays usable.
MEMORY = 16 << 30
PASSED = 'passed'
# Begins the outcome where one of our own errors says why FishNet does not fit.
REFUSED = 'refused, because '


def family_of(config: str) -> str:
    """The folder of a config below MMDetection's ``configs``."""
    return config.partition('/')[0]


def zoo_folder() -> Path:
    """Where MMDetection keeps the configs that it ships."""
    return folder('mmdet') / '.mim' / 'configs'


def zoo_configs() -> Iterator[str]:
    """The paths, below `zoo_folder`, of all configs with a model whose backbone is ResNet-like."""
    root = zoo_folder()
    for path in sorted(root.rglob('*.py')):
        name = path.relative_to(root).as_posix()
        if name.startswith('common/') or '_base_' in path.parts:
            continue
        try:
            cfg = Config.fromfile(path)
        except (OSError, ImportError):  # it inherits from a file that is not shipped
            continue
        if resnet_like(cfg):
            yield name


def by_family(configs: Iterable[str]) -> dict[str, list[str]]:
    """Configs by their family; those with a ResNet-50 first, and of these the shortest name."""
    families: dict[str, list[str]] = {}
    for config in sorted(configs, key=lambda name: ('r50' not in name, len(name), name)):
        families.setdefault(family_of(config), []).append(config)
    return dict(sorted(families.items()))


def try_config(config: str, arch: str) -> Iterator[tuple[str, str]]:
    """Try a config of the zoo as shipped and with FishNet.

    Args:
        config: path below `zoo_folder`.
        arch: of `FishNet`.

    Yields:
        'control' and then 'fishnet', each as soon as it is known, with 'passed', 'refused,
        because ' and why, or an error.
    """
    cfg = Config.fromfile(zoo_folder() / config)
    for size in SIZES:
        control = _outcome(lambda size=size: try_model(cfg, size))
        if control == PASSED:
            break
    yield 'control', control
    yield 'fishnet', _outcome(lambda: try_model(plug_in(cfg, arch), size))


def try_model(cfg: Config, size: int = SIZES[0]) -> dict[str, float]:
    """Build a model, do one training step and one prediction.

    Args:
        cfg: a config of MMDetection.
        size: height and width of the images, in pixels.

    Returns:
        The losses of the step; none for a config without an optimiser, which only predicts.

    Raises:
        Exception: whatever the model raises.
        FloatingPointError: a loss, or a weight after the step, is not finite.
        LookupError: the model did not return one prediction for each image.
    """
    register_all_modules()
    torch.manual_seed(0)
    # Where the runner writes how far a training is.
    MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0, max_iters=1))
    model_cfg = _without_downloads(cfg.model.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        if 'language_model' in model_cfg:
            model_cfg['language_model']['name'] = _language_model(folder)
        model = revert_sync_batchnorm(MODELS.build(ConfigDict(_lowered(model_cfg))))
    model.init_weights()

    losses = {}
    if 'optim_wrapper' in cfg:  # trackers of parts that are trained apart have none
        model.train()
        losses = model.train_step(training_batch(model_cfg, size), _optimiser(cfg, model))
    for name, value in losses.items():
        if not value.isfinite().all():
            raise FloatingPointError(f'{name} is {value}')
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(f'{name} is not finite after a training step')

    model.eval()
    batch = prediction_batch(model_cfg, size)
    with torch.no_grad():
        predictions = model.test_step(batch)
    if len(predictions) != len(batch['data_samples']):
        raise LookupError(f'{len(predictions)} predictions for {len(batch["data_samples"])} images')
    return {name: float(value.sum()) for name, value in losses.items()}


def training_batch(model: dict, size: int) -> dict[str, Any]:
    """Two images with targets, in the form that a model's data preprocessor takes."""
    kind = _preprocessor(model)
    if kind == 'ReIDDataPreprocessor':
        # The triplet loss needs two identities, and two images of each.
        samples = [ReIDDataSample().set_gt_label(i // 2) for i in range(4)]
        return dict(inputs=[_image(256, 128, i) for i in range(4)], data_samples=samples)
    images = [_image(size, size, i) for i in range(2)]
    if kind == 'MultiBranchDataPreprocessor':
        branches = 'sup', 'unsup_teacher', 'unsup_student'
        samples = {branch: [_sample(model, size, i) for i in range(2)] for branch in branches}
        return dict(inputs={branch: list(images) for branch in branches}, data_samples=samples)
    if kind == 'TrackDataPreprocessor':
        video = TrackDataSample(metainfo=dict(key_frames_inds=[0], ref_frames_inds=[1]))
        video.video_data_samples = [_sample(model, size, i) for i in range(2)]
        return dict(inputs=[torch.stack(images)], data_samples=[video])
    if kind == 'LineDetDataProcessor':
        return dict(inputs=[_image(*LANES, i) for i in range(2)], data_samples=[_lanes(), _lanes()])
    return dict(inputs=images, data_samples=[_sample(model, size, i) for i in range(2)])


def prediction_batch(model: dict, size: int) -> dict[str, Any]:
    """One image, or a video of one, in the form that a model's data preprocessor takes."""
    kind = _preprocessor(model)
    if kind == 'ReIDDataPreprocessor':
        return dict(inputs=[_image(256, 128, 0)], data_samples=[ReIDDataSample().set_gt_label(0)])
    if kind == 'LineDetDataProcessor':
        return dict(inputs=[_image(*LANES, 0)], data_samples=[_lanes()])
    image, sample = _image(size, size, 0), _sample(model, size, 0)
    if kind == 'TrackDataPreprocessor':
        video = TrackDataSample(metainfo=dict(ori_video_length=1))
        video.video_data_samples = [sample]
        return dict(inputs=[image[None]], data_samples=[video])
    return dict(inputs=[image], data_samples=[sample])


def run_zoo(
    configs: Iterable[str],
    results: Path,
    *,
    one_per_family: bool = False,
    arch: str = 'fishnet77',
    limit: float = 600,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Try configs, each in a process of its own, and keep what came out.

    Args:
        configs: paths below `zoo_folder`.
        results: a file with one line of JSON per config and arch. Those in it are not tried again.
        one_per_family: try one config of each family; where its control fails, up to two more.
        arch: of `FishNet`.
        limit: seconds for a config; what takes longer has failed.

    Yields:
        Each config and its outcome; see `try_config`.
    """
    done = read_results(results, arch)
    results.parent.mkdir(parents=True, exist_ok=True)

    def outcome(config: str) -> dict[str, str]:
        if config not in done:
            done[config] = _in_a_process(config, arch, limit)
            with results.open('a') as file:
                file.write(json.dumps(dict(arch=arch, config=config, **done[config])) + '\n')
            print(config, *done[config].values(), sep=' | ', flush=True)
        return done[config]

    if not one_per_family:
        yield from ((config, outcome(config)) for config in configs)
        return
    for candidates in by_family(configs).values():
        passing = (name for name in candidates[:3] if outcome(name)['control'] == PASSED)
        config = next(passing, candidates[0])
        yield config, outcome(config)


def read_results(results: Path, arch: str) -> dict[str, dict[str, str]]:
    """What `run_zoo` wrote for an arch, by the names of the configs."""
    if not results.is_file():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {line.pop('config'): line for line in lines if line.pop('arch') == arch}


def zoo_page(
    families: dict[str, dict[str, str]],
    configs: dict[str, dict[str, str]],
    totals: tuple[int, int],
    arch: str,
) -> str:
    """What came out, as a page in Markdown.

    Args:
        families: the outcome of the config that stands for each family.
        configs: the outcomes of all configs that were tried.
        totals: how many families and configs there are.
        arch: of `FishNet`.

    Returns:
        Counts, a row for each family, and the reasons of all that failed or was refused.
    """
    lines = [
        "# FishNet in MMDetection's own configs",
        '',
        'Configs that MMDetection ships with a ResNet-like backbone, each as it is (the control) '
        f'and with FishNet in its place (`mmfish.plug_in`, here {arch}): build, one training step '
        'with boxes, masks and semantic maps, one prediction, on a CPU, from random weights and '
        'with fewer proposals. Refused: `plug_in` says in one sentence why FishNet does not fit. '
        '`python tools/zoo.py` makes this page: it tries one config of each family, and up to two '
        'more where the control fails; with `--all` every config.',
        '',
        f'**{_counts(families, totals[0], "families")}** '
        f'**{_counts(configs, totals[1], "configs")}**',
        '',
        '| family | config | control | FishNet | reason |',
        '|---|---|---|---|---|',
    ]
    for config, row in families.items():
        cells = family_of(config), _name(config), *_cells(row), _reason(row)
        lines.append(f'| {" | ".join(cells)} |')
    failed: dict[str, list[str]] = {}
    for config, row in configs.items():
        if _reason(row):
            failed.setdefault(_reason(row), []).append(f'{family_of(config)}/{_name(config)}')
    lines += [
        '',
        '## All that failed or was refused',
        '',
        '| reason | number | configs |',
        '|---|--:|---|',
    ]
    for reason, names in sorted(failed.items(), key=lambda item: -len(item[1])):
        lines.append(f'| {reason} | {len(names)} | {", ".join(names)} |')
    return '\n'.join(lines) + '\n'


def _counts(rows: dict[str, dict[str, str]], total: int, what: str) -> str:
    cells = [_cells(row) for row in rows.values()]
    of_controls = [fishnet for control, fishnet in cells if control == PASSED]
    return (
        f'{len(cells)} of {total} {what} tried: {len(of_controls)} controls passed, and of these '
        f'{of_controls.count(PASSED)} pass with FishNet and {of_controls.count("refused")} are '
        'refused.'
    )


def _cells(row: dict[str, str]) -> tuple[str, str]:
    return _cell(row['control']), _cell(row['fishnet'])


def _cell(outcome: str) -> str:
    if outcome == PASSED:
        return PASSED
    return 'refused' if outcome.startswith(REFUSED) else 'failed'


def _name(config: str) -> str:
    return config.partition('/')[2].removesuffix('.py')


def _reason(row: dict[str, str]) -> str:
    """Why the control or FishNet failed; '' if both passed."""
    if row['control'] == row['fishnet']:
        reason = '' if row['control'] == PASSED else f'both: {row["control"]}'
    else:
        labels = dict(control='control', fishnet='FishNet')
        reason = '; '.join(f'{labels[k]}: {row[k]}' for k in labels if row[k] != PASSED)
    return reason.replace('|', '\\|')


def _in_a_process(config: str, arch: str, limit: float) -> dict[str, str]:
    # Forked: what is imported stays imported, and what the config took goes with the process.
    register_all_modules()
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, config, arch))
    process.start()
    sender.close()
    outcomes, end, reason = {}, time.monotonic() + limit, f'took more than {limit:.0f} s'
    try:
        while 'fishnet' not in outcomes and receiver.poll(max(end - time.monotonic(), 0)):
            key, outcome = receiver.recv()
            outcomes[key] = outcome
    except EOFError:
        process.join()
        reason = f'the process died (exit code {process.exitcode})'
    finally:
        process.kill()
        process.join()
    return dict(control=reason, fishnet=reason) | outcomes


def _report(sender: Connection, config: str, arch: str) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    os.chdir(zoo_folder().parent)  # some configs name their teacher's by a path from there
    torch.set_num_threads(1)  # others would be those of the process before the fork
    warnings.simplefilter('ignore')
    MMLogger.get_instance('zoo', log_level='ERROR')  # no lines about each initialised weight
    # As in a training on one GPU: mmcv's SyncBN asks for its group as soon as it is built.
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    for outcome in try_config(config, arch):
        sender.send(outcome)


def _outcome(trial: Callable[[], object]) -> str:
    try:
        trial()
    except UsageError as error:
        return f'{REFUSED}{error}'
    except Exception as error:  # whatever any of MMDetection's models may raise is a result
        last = traceback.extract_tb(error.__traceback__)[-1]
        lines = str(error).strip().splitlines()
        text = f'{type(error).__name__}: {lines[0] if lines else ""}'
        # No paths of this machine.
        text = re.sub(r'/\S*/', '', text)[:200]
        return f'{text} ({Path(last.filename).name}, {last.name})'
    return PASSED


def _optimiser(cfg: Config, model: nn.Module) -> Any:
    optim_wrapper = cfg.optim_wrapper.to_dict()
    # The first step of a warm-up: at the full rate, random weights can go far astray.
    optim_wrapper['optimizer']['lr'] *= 0.001
    # Mixed precision and its scaling need a GPU.
    for option in ('loss_scale', 'dtype', 'use_fsdp'):
        optim_wrapper.pop(option, None)
    return build_optim_wrapper(model, {**optim_wrapper, 'type': 'OptimWrapper'})


def _without_downloads(node: Any) -> Any:
    """Leave out every checkpoint that a model would load."""
    if isinstance(node, (list, tuple)):
        return type(node)(_without_downloads(part) for part in node)
    if not isinstance(node, dict):
        return node
    plain = {}
    for key, value in node.items():
        loads = isinstance(value, dict) and value.get('type') == 'Pretrained'
        if key == 'teacher_ckpt':
            plain[key] = None
        elif not (key == 'pretrained' or (key == 'init_cfg' and loads)):
            plain[key] = _without_downloads(value)
    return plain


def _language_model(folder: str) -> str:
    """Write a BERT of one layer that has not learnt anything, where others are downloaded."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = [
        '[PAD]',
        '[UNK]',
        '[CLS]',
        '[SEP]',
        '[MASK]',
        '.',
        '?',
        'first',
        'second',
        'thing',
    ]
    words = Path(folder, 'vocab.txt')
    words.write_text('\n'.join(vocabulary))
    BertTokenizerFast(str(words)).save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocabulary), num_hidden_layers=1)
    BertModel(config).save_pretrained(folder)
    return folder


def _lowered(node: Any) -> Any:
    if isinstance(node, (list, tuple)):
        return type(node)(_lowered(part) for part in node)
    if not isinstance(node, dict):
        return node
    return {
        key: min(value, LIMITS[key])
        if key in LIMITS and isinstance(value, int) and value > 0
        else _lowered(value)
        for key, value in node.items()
        if key != 'batch_augments'
    }


def _preprocessor(model: dict) -> str:
    return (model.get('data_preprocessor') or {}).get('type', '').rpartition('.')[2]


def _image(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def _sample(model: dict, size: int, seed: int) -> DetDataSample:
    """The targets of an image: three boxes with their masks, and stripes of semantic classes."""
    things, classes = _classes(model)
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.5, 0.2, 0.9, 0.6], [0.2, 0.6, 0.5, 0.95]]) * size
    masks = np.zeros((len(boxes), size, size), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.arange(len(boxes)) % things
    instances = InstanceData(
        bboxes=boxes,
        labels=labels,
        masks=BitmapMasks(masks, size, size),
        instances_ids=torch.arange(len(boxes)),
    )
    ignored = InstanceData(
        bboxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.long),
        masks=BitmapMasks(masks[:0], size, size),
    )
    # Rising classes from top to bottom, up to the last: stuff comes after the things.
    stripes = torch.linspace(0, classes - 1, 8).long().repeat_interleave(size // 8)
    sample = DetDataSample(
        metainfo=dict(
            img_id=seed,
            img_path='made-up.png',
            img_shape=(size, size),
            ori_shape=(size, size),
            batch_input_shape=(size, size),
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
            border=(0, size, 0, size),
            frame_id=0,
            homography_matrix=np.eye(3, dtype=np.float32),
            text=('first thing', 'second thing', 'third thing'),
            custom_entities=False,
        )
    )
    sample.gt_instances = instances
    sample.ignored_instances = ignored
    sample.gt_sem_seg = PixelData(sem_seg=stripes[None, :, None].expand(1, size, size).clone())
    if not any('rpn_head' in part for part in dicts(model)):
        # Fast R-CNN takes them from a file.
        sample.proposals = InstanceData(
            bboxes=torch.cat([boxes, boxes + size / 16]).clamp(max=size), scores=torch.ones(6)
        )
    return sample


def _lanes() -> DetDataSample:
    """The targets of an image of a road: two lanes as lines and in the semantic map."""
    height, width = LANES
    lines = [[(200, height - 1), (300, 10)], [(600, height - 1), (500, 10)]]
    arrays = TRANSFORMS.build(dict(type='LinesToArray')).transform(dict(lines=lines))
    classes = torch.zeros(1, height, width, dtype=torch.long)
    classes[..., 240:260], classes[..., 540:560] = 1, 2
    return DetDataSample(
        lines_array=arrays['lines_array'],
        org_height=height,
        org_width=width,
        gt_sem_seg=PixelData(sem_seg=classes),
    )


def _classes(model: dict) -> tuple[int, int]:
    """How many classes of things a model has at least, and of things and stuff at most."""
    fields: dict[str, list[int]] = {}
    for part in dicts({key: part for key, part in model.items() if key != 'backbone'}):
        for key, value in part.items():
            if isinstance(value, int):
                fields.setdefault(key, []).append(value)
    things = min(fields.get('num_things_classes', []) + fields.get('num_classes', []) or [1])
    stuff = max(fields.get('num_stuff_classes', [0]))
    return things, things + stuff

"""Time and memory of FishNet in each of its modes and runtimes, beside other networks.

All networks of a run take turns in one process, and the median of the rounds counts: whatever else
the machine does meanwhile slows all of them.
"""

import atexit
import copy
import csv
import ctypes
import importlib.metadata
import multiprocessing
import platform
import statistics
import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, partial
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmcv.image import imwrite
from mmdet.apis import inference_detector, init_detector
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmpretrain import get_model
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.profiler import profile
from torch.utils.benchmark import set_torch_threads
from torch.utils.benchmark.utils.timer import timer

from benchmarks.memory import activation_memory
from benchmarks.runtimes import Exported, peak_rss
from demo.markdown import markdown_table
from mmfish.checkpoints import from_pytorchcv
from mmfish.deploy import export
from mmfish.errors import UsageError
from mmfish.models.fusion import fuse
from mmfish.registry import MODELS

KINDS = ('backbone', 'classifier', 'detector')
RELEASED = 'pytorchcv FishNet-150'
# What a mode changes: options of the backbone, what is done to the model, and what runs its file.
TREATMENTS = ('fused', 'channels_last', 'compiled', 'exported')
OPENVINO = dict(runtime='openvino')
FROZEN_BN = dict(norm_cfg=dict(type='mmfish.FrozenBN'))
MODES: dict[str, dict[str, dict[str, Any]]] = {
    'inference': {
        'plain': {},
        'channels-last': dict(channels_last=True),
        'fused': dict(fused=True),
        'fused, channels-last': dict(fused=True, channels_last=True),
        'compiled': dict(fused=True, channels_last=True, compiled=True),
    },
    'training': {
        'BN': {},
        'FrozenBN': FROZEN_BN,
        'FrozenBN, channels-last': dict(FROZEN_BN, channels_last=True),
        'FrozenBN, channels-last, with_cp': dict(FROZEN_BN, channels_last=True, with_cp=True),
    },
    'exported': {
        'plain': {},
        'ONNX Runtime': dict(exported=dict(runtime='onnxruntime')),
        'OpenVINO': dict(exported=OPENVINO),
        'OpenVINO, bf16': dict(exported=dict(OPENVINO, precision='bf16')),
        'OpenVINO, int8': dict(exported=dict(OPENVINO, int8=True)),
        'OpenVINO, 2 streams': dict(exported=dict(OPENVINO, streams=2)),
        'OpenVINO, bf16, 2 streams': dict(exported=dict(OPENVINO, precision='bf16', streams=2)),
    },
}
# In which ResNet-50 is measured as well; all else is measured as it ships.
RESNET_MODES = {
    'inference': ['fused, channels-last'],
    'training': ['FrozenBN, channels-last'],
    'exported': ['ONNX Runtime', 'OpenVINO', 'OpenVINO, bf16'],
}
OPERATORS = 8  # in a profile
RUNTIMES = ('onnxruntime', 'openvino')
COMPARED = (320, 192)  # width and height of the images when a detector is exported
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)
HRNET = 'mmdet::hrnet/mask-rcnn_hrnetv2p-w32-1x_coco.py'
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
RESNET_CHANNELS = (256, 512, 1024, 2048)
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    'ResNet-50': (dict(type='mmdet.ResNet', depth=50), RESNET_CHANNELS),
    'ResNet-101': (dict(type='mmdet.ResNet', depth=101), RESNET_CHANNELS),
    'ResNeXt-50': (dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4), RESNET_CHANNELS),
    'Res2Net-50': (dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26), RESNET_CHANNELS),
    'HRNet-W32': (dict(type='mmdet.HRNet'), (32, 64, 128, 256)),
    'DenseNet-161': (
        dict(type='mmpretrain.DenseNet', arch='161', out_indices=(0, 1, 2, 3)),
        (192, 384, 1056, 2208),
    ),
}


@dataclass(frozen=True)
class Setting:
    """What a run measures.

    Attributes:
        kind: 'backbone', 'classifier', or 'detector' (Mask R-CNN with FPN, as MMDetection ships
            it).
        step: 'inference'; 'training', which is forward and backward, without the optimiser; or
            'exported', inference with the files of `mmfish.export` beside PyTorch, of a detector
            all of it: from a picture half as high and wide, which is resized, to boxes and masks of
            its size.
        arch: of FishNet.
        batch: images at once.
        height: of the images, in pixels.
        width: likewise.
        threads: of the CPU.
        keep_memory: on a CPU, the process keeps the memory that is freed. As Linux comes, the C
            library returns large blocks to the kernel, and a good part of each step goes into
            getting pages back.
    """

    kind: str = 'backbone'
    step: str = 'inference'
    arch: str = 'fishnet150'
    batch: int = 1
    height: int = 800
    width: int = 1344
    threads: int = 2
    keep_memory: bool = False


@dataclass
class Measurement:
    """Figures of one network.

    Attributes:
        seconds: of a step; with streams, for each image.
        lower_bound: seconds of the model's own convolutions alone, one by one, at the same shapes
            and in the same layout, in training forward and backward; of an exported file those of
            the fused model in channels-last, in PyTorch and in the file's precision.
        macs: multiply-adds of these convolutions, forward.
        peak_bytes: the most memory that the tensors of a step take beyond what there was before; of
            the step 'exported' how much the resident set of a process grows, by the model too, and
            0 where it was not measured.
        activation_bytes: what autograd keeps from forward to backward; 0 in inference.
        operators: seconds of those that take the most time in one more step.
    """

    seconds: float
    lower_bound: float
    macs: int
    peak_bytes: int
    activation_bytes: int = 0
    operators: dict[str, float] = field(default_factory=dict)


Run = dict[str, Measurement]  # by the name of the network
Recipe = tuple[Callable[[], nn.Module], dict[str, Any]]
_folder = TemporaryDirectory(prefix='mmfish-benchmark-')
atexit.register(_folder.cleanup)
# By the network's name and kind, and whether in int8: the model in its fastest mode, and its file.
_exported: dict[tuple[str, str, bool], tuple[nn.Module, Path]] = {}
COLUMNS = [
    'environment',
    'name',
    *(f.name for part in (Setting, Measurement) for f in fields(part)),
]


@dataclass
class Network:
    """Something to measure.

    Attributes:
        model: with its mode, layout and weights as they are to be measured.
        forward: runs the model once, uncompiled; in training it returns a loss.
        run: the same, compiled or not, or with its file.
        exported: the file, and how it is run.
    """

    model: nn.Module
    forward: Callable[[], Any]
    run: Callable[[], Any]
    exported: Exported | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in."""
        bf16 = self.exported is not None and self.exported.precision == 'bf16'
        return torch.bfloat16 if bf16 else torch.float32


def benchmark(
    setting: Setting,
    names: Sequence[str] | None = None,
    rounds: int = 5,
    device: str = 'cpu',
    rss: bool = False,
) -> Run:
    """Measure FishNet in each of its modes, and other networks.

    Args:
        setting: what to measure. With ``keep_memory`` the process keeps it until it ends.
        names: of the networks, all of `network_names` by default.
        rounds: in each, every network has its turn.
        device: where to run.
        rss: of the step 'exported' measure the memory too, each network in a process of its own.

    Returns:
        The figures of each network.

    Raises:
        UsageError: there is no such network, device or runtime, or nothing to measure.
    """
    sizes = setting.batch, rounds, setting.height, setting.width, setting.threads
    if min(sizes) < 1:
        raise UsageError(
            'batch, rounds, height, width and threads must be at least 1, got '
            f'{", ".join(map(str, sizes))}'
        )
    if setting.step == 'exported' and (setting.batch != 1 or device != 'cpu'):
        raise UsageError('exported files are measured on the CPU with one image at a time')
    missing = [name for name in ('onnx', *RUNTIMES) if find_spec(name) is None]
    if setting.step == 'exported' and missing:
        raise UsageError(
            f'exported files are measured with the packages onnx, {" and ".join(RUNTIMES)}: '
            f'`pip install {" ".join(missing)}`'
        )
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UsageError(f'torch {torch.__version__} finds no GPU for --device {device}: use cpu')
    builders = _builders(setting)
    unknown = set(names or ()) - builders.keys()
    if unknown:
        raise UsageError(
            f'there is no network {min(unknown)!r} for {setting.step} of a {setting.kind}: '
            f'expected some of {"; ".join(builders)}'
        )
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        set_torch_threads(setting.threads) if device == 'cpu' else nullcontext(),
    ):
        networks = {
            name: _network(name, build, setting, device)
            for name, build in builders.items()
            if not names or name in names
        }
        if setting.keep_memory:
            for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
                ctypes.CDLL(None).mallopt(parameter, value)
        run = _measure(networks, setting.step == 'training', rounds, torch.device(device))
        if setting.step == 'exported':
            for name, network in networks.items():
                run[name].peak_bytes = _rss(name, setting, network.exported) if rss else 0
        return run


def network_names(setting: Setting) -> list[str]:
    """The names of all that `benchmark` measures by default."""
    return list(_builders(setting))


def baseline(setting: Setting) -> str:
    """The network to whose time others are related."""
    if setting.kind != 'detector':
        return RELEASED
    return 'FishNet-150, plain' if setting.step == 'exported' else 'ResNet-50'


def convolutions(
    model: nn.Module,
    forward: Callable[[], Any],
    training: bool,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Callable[[], object]], int]:
    """A model's convolutions, to be run alone.

    Args:
        model: where they are.
        forward: runs it.
        training: with the backward pass of each.
        dtype: what they compute in, whatever the model does.

    Returns:
        A function for each time that a convolution ran, for the same shapes and layouts; and the
        multiply-adds of all, forward.
    """
    calls, macs, inputs = [], 0, {}

    def record(conv: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * conv.weight[0].numel()
        x = args[0]
        key = x.shape, x.stride(), x.requires_grad
        if key not in inputs:  # one for all of a kind, or they would take more than the network
            inputs[key] = torch.randn_like(x, dtype=dtype).requires_grad_(x.requires_grad)
        if conv.weight.dtype != dtype:
            conv = copy.deepcopy(conv).to(dtype)
        calls.append(partial(_convolve, conv, inputs[key], training and output.requires_grad))

    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles = [conv.register_forward_hook(record) for conv in convs]
    forward()
    for handle in handles:
        handle.remove()
    return calls, macs


def table(setting: Setting, run: Run) -> str:
    """A run in Markdown, with ratios to the baseline of its kind where that has been measured."""
    base = run.get(baseline(setting))
    training = any(m.activation_bytes for m in run.values())
    head = ['', 'GMACs', 'seconds', 'ratio', 'over the lower bound']
    head += ['activation memory, MiB', 'ratio'] * training + ['peak, MiB']
    rows = []
    for name, m in run.items():
        row = [name, f'{m.macs / 1e9:.1f}', f'{m.seconds:.3f}']
        row += [f'{m.seconds / base.seconds:.2f}' if base else '']
        row += [f'{m.seconds / m.lower_bound:.2f}']
        if training:
            row.append(f'{m.activation_bytes / 2**20:.0f}')
            row.append(f'{m.activation_bytes / base.activation_bytes:.2f}' if base else '')
        rows.append([*row, f'{m.peak_bytes / 2**20:.0f}'])
    return markdown_table(head, rows, numbers=len(head) - 1)


def environment(setting: Setting, device: str = 'cpu') -> str:
    """What figures depend on: device and versions."""
    gpu = device.startswith('cuda')
    where = torch.cuda.get_device_name(device) if gpu else f'{platform.machine()} CPU'
    versions = [f'torch {torch.__version__}', f'Python {platform.python_version()}']
    if setting.step == 'exported':
        versions += [f'{name} {importlib.metadata.version(name)}' for name in RUNTIMES]
    return f'{where}; {", ".join(versions)}'


def add_to_csv(path: Path, setting: Setting, run: Run, environment: str) -> None:
    """Write a run at the end of a file, one line for each network.

    Args:
        path: the file; it and its folder are made where there are none.
        setting: of the run.
        run: its figures.
        environment: what they depend on.
    """
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        if new:
            writer.writeheader()
        for name, measurement in run.items():
            row = dict(environment=environment, name=name, **asdict(setting), **asdict(measurement))
            row['keep_memory'] = int(setting.keep_memory)
            row['operators'] = '; '.join(f'{k}={v:.6f}' for k, v in row['operators'].items())
            writer.writerow(row | {key: f'{row[key]:.6f}' for key in ('seconds', 'lower_bound')})


def read_csv(path: Path) -> tuple[dict[Setting, set[str]], dict[Setting, Run]]:
    """Read what `add_to_csv` wrote: the environments, and the runs."""
    environments: dict[Setting, set[str]] = {}
    runs: dict[Setting, Run] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            settings = {f.name: row[f.name] for f in fields(Setting)}
            whole = ('batch', 'height', 'width', 'threads', 'keep_memory')
            setting = Setting(**settings | {key: int(row[key]) for key in whole})
            environments.setdefault(setting, set()).add(row['environment'])
            pairs = (item.rpartition('=') for item in row['operators'].split('; ') if item)
            runs.setdefault(setting, {})[row['name']] = Measurement(
                float(row['seconds']),
                float(row['lower_bound']),
                *(int(row[key]) for key in ('macs', 'peak_bytes', 'activation_bytes')),
                operators={key: float(value) for key, _, value in pairs},
            )
    return environments, runs


def plot(run: Run, out: Path) -> Path:
    """Draw time against MACs with the lower bounds, or in training the activation memory.

    Args:
        run: what to draw.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.
    """
    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout='constrained')
    axes = figure.subplots()
    if any(m.activation_bytes for m in run.values()):
        names = list(run)[::-1]
        sizes = [run[name].activation_bytes / 2**20 for name in names]
        bars = axes.barh(names, sizes, color=[_colour(name) for name in names])
        axes.bar_label(bars, fmt='%.0f', padding=3, fontsize=8)
        axes.margins(x=0.12)
        axes.tick_params(axis='y', labelsize=8)
        axes.set_xlabel('activation memory, MiB')
    else:
        top = max(m.seconds for m in run.values()) * 1.05
        labels: list[tuple[float, float]] = []  # where they are: GMACs, points
        for name, m in sorted(run.items(), key=lambda item: item[1].seconds):
            x = m.macs / 1e9
            axes.plot([x, x], [m.lower_bound, m.seconds], color='#bbbbbb', linewidth=1, zorder=1)
            axes.plot(x, m.lower_bound, '_', color='#777777', markersize=12)
            axes.plot(x, m.seconds, 'o', color=_colour(name))
            # No label on top of another: 280 points is about the height of the axes.
            point = m.seconds / top * 280
            height = max([point, *(y + 9 for other, y in labels if abs(x - other) < 20)])
            labels.append((x, height))
            offset = 6, height - point
            axes.annotate(
                name, (x, m.seconds), offset, textcoords='offset points', fontsize=7, va='center'
            )
        axes.plot([], [], '_', color='#777777', markersize=12, label='its convolutions alone')
        axes.legend(frameon=False)
        axes.margins(x=0.25)
        axes.set(xlabel='GMACs', ylabel='seconds', ylim=(0, top))
    axes.spines[['top', 'right']].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _colour(name: str) -> str:
    return 'C0' if 'FishNet' in name else 'C1'


def _builders(setting: Setting) -> dict[str, Recipe]:
    """How each network is made, by name: a function that returns it, and what is done to it."""
    kind, arch, modes = setting.kind, setting.arch, MODES[setting.step]
    fish = arch.replace('fishnet', 'FishNet-')
    builders = {
        f'{fish}, {mode}': _recipe(partial(_build_fishnet, setting), changes)
        for mode, changes in modes.items()
        if _applies(changes, setting)
    }
    if kind != 'detector':
        builders[RELEASED] = partial(_build_pytorchcv, kind), {}
    for name in OTHERS:
        if name == 'ResNet-50' or not (
            kind == 'classifier'
            or setting.step == 'exported'
            or (kind == 'detector' and name == 'DenseNet-161')
        ):
            builders[name] = partial(_build_other, setting, name), {}
    for mode in RESNET_MODES[setting.step]:
        name = f'ResNet-50, {mode}'
        builders[name] = _recipe(partial(_build_other, setting, 'ResNet-50'), modes[mode])
    return builders


def _recipe(build: Callable[..., nn.Module], changes: dict[str, Any]) -> Recipe:
    options = {key: value for key, value in changes.items() if key not in TREATMENTS}
    return partial(build, **options), {key: changes[key] for key in changes.keys() - options}


def _applies(changes: dict[str, Any], setting: Setting) -> bool:
    """Whether a mode is one of a setting."""
    if setting.kind == 'detector' and 'compiled' in changes:  # its heads would compile for minutes
        return False
    if setting.step != 'exported':
        return True
    how = changes.get('exported', {})
    if how.get('streams', 1) > 1:
        return setting.kind == 'backbone' and setting.threads > 1
    if how.get('int8'):
        return setting.kind == 'detector'
    return 'exported' in changes or setting.kind == 'detector'  # else there is the baseline


def _build_fishnet(setting: Setting, **changes: Any) -> nn.Module:
    if setting.kind == 'detector':
        changes['frozen_stages'] = 0
    backbone = dict(type='mmfish.FishNet', arch=setting.arch, **changes)
    with torch.device('meta'):
        channels = MODELS.build(backbone).out_channels
    model = _around(setting, backbone, channels)
    if setting.kind != 'detector' and setting.arch == 'fishnet150':  # numbers of the baseline
        weights = from_pytorchcv(_pytorchcv_net().state_dict())
        if setting.kind == 'backbone':
            backbone = [key for key in weights if key.startswith('backbone.')]
            weights = {key.removeprefix('backbone.'): weights[key] for key in backbone}
        model.load_state_dict(weights)
    return model


def _build_pytorchcv(kind: str) -> nn.Module:
    features = _pytorchcv_net().features
    backbone = nn.Sequential(features.init_block, features.hg)
    return backbone if kind == 'backbone' else _pytorchcv_net()


@cache
def _pytorchcv_net() -> nn.Module:
    try:
        from pytorchcv.model_provider import get_model
    except ImportError as error:
        raise UsageError(
            'the benchmark of backbones needs the package pytorchcv: `pip install pytorchcv`'
        ) from error
    return get_model('fishnet150')


def _build_other(setting: Setting, name: str, **changes: Any) -> nn.Module:
    backbone, channels = OTHERS[name]
    if setting.kind == 'detector' and name == 'ResNet-50':  # frozen stages and all
        backbone = dict(get_config(MASK_RCNN).model.backbone, init_cfg=None)
    elif name == 'HRNet-W32':
        backbone = dict(backbone, extra=get_config(HRNET).model.backbone.extra)
    return _around(setting, dict(backbone, **changes), channels)


def _around(setting: Setting, backbone: dict, channels: Sequence[int]) -> nn.Module:
    """A backbone alone, in a classifier, or in Mask R-CNN."""
    if setting.kind == 'backbone':
        return MODELS.build(backbone)
    if setting.kind == 'classifier':
        fish = 'arch' in backbone
        head = dict(type='mmfish.FishNetClsHead' if fish else 'LinearClsHead', num_classes=1000)
        model = dict(
            type='ImageClassifier',
            backbone=backbone if fish else dict(backbone, out_indices=(3,)),
            neck=None if fish else dict(type='GlobalAveragePooling'),
            head=dict(head, in_channels=channels[-1]),
            data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
        )
        pipeline = [dict(type='PackInputs')]  # no resizing
        data = dict(dataset=dict(type='ImageNet', pipeline=pipeline))
        return get_model(Config(dict(model=model, test_dataloader=data)))
    cfg = get_config(MASK_RCNN)
    cfg.model.backbone = backbone
    cfg.model.neck.in_channels = list(channels)
    if setting.step != 'exported':
        return MODELS.build(cfg.model)
    cfg.test_dataloader.dataset.pipeline[1].scale = COMPARED
    return init_detector(cfg, device='cpu')


def _network(name: str, recipe: Recipe, setting: Setting, device: str) -> Network:
    build, treatment = recipe
    if 'exported' in treatment:
        fish = name.partition(',')[0]
        return _exported_network((fish, setting.kind), build, setting, treatment['exported'])
    return _prepared(_built(build, setting), treatment, setting, device)


def _built(build: Callable[[], nn.Module], setting: Setting) -> nn.Module:
    torch.manual_seed(0)  # for each: it shall not depend on which are asked for
    model = build()
    if setting.step == 'exported' and setting.kind == 'detector':
        _find_a_hundred(model, _image(replace(setting, width=COMPARED[0], height=COMPARED[1])))
    return model


def _find_a_hundred(model: nn.Module, picture: np.ndarray) -> None:
    """Make a detector of random weights find about 100 objects, as many as it may."""
    # Its scores hardly differ, and rounding would decide what is found. So the outputs of the last
    # layer get a mean of 0 and a standard deviation of 3 for each class.
    layer, outputs = model.roi_head.bbox_head.fc_cls, []
    hook = layer.register_forward_hook(lambda layer, args, output: outputs.append(output))
    inference_detector(model, picture)
    hook.remove()
    factor = 3 / outputs[0].std(0)
    with torch.no_grad():
        layer.weight.mul_(factor[:, None])
        layer.bias.sub_(outputs[0].mean(0)).mul_(factor)
    cfg = model.roi_head.test_cfg
    cfg.score_thr = 0
    cfg.score_thr = inference_detector(model, picture).pred_instances.scores.min().item()


def _exported_network(
    key: tuple[str, str], build: Callable[[], nn.Module], setting: Setting, how: dict[str, Any]
) -> Network:
    """What runs a file, and the model in its fastest mode, which the lower bound is of."""
    integers = how.get('int8', False)
    how = {name: value for name, value in how.items() if name != 'int8'}
    key = (*key, integers)
    if key not in _exported:
        model = _built(build, setting)
        picture = Path(_folder.name, 'picture.png')
        imwrite(_image(replace(setting, kind='classifier')), str(picture))
        file = Path(_folder.name, f'{len(_exported)}.onnx')
        export(model, file, int8=picture if integers else None)
        _exported[key] = fuse(model).to(memory_format=torch.channels_last), file
    model, file = _exported[key]
    forward = _forward(model, setting, 'cpu')
    resizing = [{**_resize(model)}] if setting.kind == 'detector' else []
    exported = Exported(file, _image(setting), resizing, setting.threads, **how)
    return Network(model, forward, exported.load(), exported)


def _prepared(model: nn.Module, treatment: dict, setting: Setting, device: str) -> Network:
    model.train(setting.step == 'training')
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # fixed in all, as in the paper's recipe
    if treatment.get('fused'):
        model = fuse(model)
    model.to(device)
    if treatment.get('channels_last'):
        model.to(memory_format=torch.channels_last)
    network = _compiled(model) if treatment.get('compiled') else model
    return Network(model, *(_forward(net, setting, device) for net in (model, network)))


def _resize(detector: nn.Module) -> dict[str, Any]:
    """The transform that brings images to the size for a detector."""
    return detector.cfg.test_dataloader.dataset.pipeline[1]


def _image(setting: Setting) -> np.ndarray:
    """(H, W, 3), uint8, RGB; for a backbone (1, 3, H, W), float32, normalised."""
    rng = np.random.default_rng(0)
    height, width = setting.height, setting.width
    if setting.kind == 'backbone':
        return rng.normal(size=(1, 3, height, width)).astype(np.float32)
    scale = 2 if setting.kind == 'detector' else 1
    return rng.integers(0, 256, (height // scale, width // scale, 3), dtype=np.uint8)


def _rss(name: str, setting: Setting, exported: Exported | None) -> int:
    """The memory that a network takes in a process of its own, where nothing else has run."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])  # imported once for all
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_rss_here, name, setting, exported).result()


def _rss_here(name: str, setting: Setting, exported: Exported | None) -> int:
    def load() -> Callable[[], object]:
        if exported is not None:
            return exported.load()
        return _network(name, _builders(setting)[name], setting, 'cpu').run

    scope = DefaultScope.overwrite_default_scope('mmdet')
    with scope, torch.no_grad(), set_torch_threads(setting.threads):
        return peak_rss(load)


def _compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    """With weights as constants, which is what lets the compiler fuse and reorder them."""
    compiled = torch.compile(model)

    def run(images: Tensor) -> Any:
        # As an option of `torch.compile` it would not reach the convolutions (torch 2.11).
        with inductor.patch(freezing=True):
            return compiled(images)

    return run


def _forward(model: Callable[..., Any], setting: Setting, device: str) -> Callable[[], Any]:
    training = setting.step == 'training'
    image = 3, setting.height, setting.width
    if setting.step == 'exported' and setting.kind == 'detector':
        picture = _image(setting)[..., ::-1].copy()
        _resize(model).scale = (setting.width, setting.height)
        return lambda: inference_detector(model, picture)
    if setting.kind == 'detector':
        packed = demo_mm_inputs(setting.batch, image, [8] * setting.batch, 80, with_mask=True)
        data = model.data_preprocessor(packed, training)
        data['inputs'] = data['inputs'].to(device)
        data['data_samples'] = [sample.to(device) for sample in data['data_samples']]
        mode = 'loss' if training else 'predict'
        run = lambda: model(**copy.copy(data), mode=mode)  # noqa: E731
        return (lambda: model.parse_losses(run())[0]) if training else run
    images = torch.randn(setting.batch, *image, device=device)
    if not training:
        return lambda: model(images)
    # The gradient of a sum has no layout of its own, as that of a mean has: none is forced on the
    # network's, which stays in that of its levels as within a detector.
    return lambda: sum(level.sum() for level in _levels(model(images)))


def _levels(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


def _measure(
    networks: dict[str, Network], training: bool, rounds: int, device: torch.device
) -> Run:
    with torch.enable_grad() if training else torch.no_grad():
        run, timed = {}, {}
        # What is timed in each round; the files of one model have their convolutions in common.
        bounds = {name: (id(net.model), net.dtype) for name, net in networks.items()}
        for name, net in networks.items():
            calls, macs = convolutions(net.model, net.forward, training, net.dtype)
            held = activation_memory(net.model, forward=net.forward) if training else 0
            run[name] = Measurement(0, 0, macs, 0, held)
            timed[name] = partial(_step, net, training)
            timed[name]()  # to warm up, and to compile
            timed.setdefault(bounds[name], lambda calls=calls: [call() for call in calls])
        times = [{key: _seconds(run) for key, run in timed.items()} for _ in range(rounds)]
        seconds = {key: statistics.median(times_of[key] for times_of in times) for key in timed}
        for name, net in networks.items():
            images = net.exported.images if net.exported else 1
            run[name].seconds = seconds[name] / images
            run[name].lower_bound = seconds[bounds[name]]
            if net.exported:
                run[name].operators = _longest(net.exported.operators())
                continue
            step = partial(_step, net, training)
            run[name].operators = _longest(_operators(step, device))
            run[name].peak_bytes = _peak(step, device)
    return run


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of one run: of the only one if it takes long, or else of as many as take 0.2 s."""
    number, seconds = timeit.Timer(run, timer=timer).autorange()
    return seconds / number


def _step(network: Network, training: bool) -> None:
    result = network.run()
    if training:
        result.backward()
        network.model.zero_grad()


def _convolve(conv: nn.Conv2d, x: Tensor, backward: bool) -> None:
    y = conv.forward(x)
    if backward:
        wanted = [t for t in (x, *conv.parameters()) if t.requires_grad]
        torch.autograd.grad(y, wanted, y.detach())


def _peak(run: Callable[[], object], device: torch.device) -> int:
    """The most memory that tensors take in a run, beyond what there was before it, in bytes."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(profile_memory=True) as profiler:
        run()
    # The raw ones: `profiler.events()` has them summed up by operator.
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == '[memory]']
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes))


def _operators(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds that the operators themselves take on the device, the longest first."""
    with profile() as profiler:
        run()
    time_of = 'self_device_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
    return {e.key.strip('# '): getattr(e, time_of) / 1e6 for e in profiler.key_averages()}


def _longest(seconds: dict[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:OPERATORS])

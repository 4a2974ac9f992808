"""Time and memory of FishNet in each of its modes, beside other networks.

All contestants take turns in one process and the median of the rounds counts: whatever else the
machine does meanwhile meets all of them.
"""

import copy
import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from mmdet.testing import demo_mm_inputs
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.profiler import profile

from benchmarks.memory import bytes_held_for_backward
from mmfish.checkpoints import from_pytorchcv
from mmfish.errors import UsageError
from mmfish.models.fusion import fuse
from mmfish.registry import MODELS

KINDS = ('backbone', 'detector', 'classifier')
STEPS = ('inference', 'training')
BASELINE = {'backbone': 'pytorchcv FishNet-150', 'detector': 'ResNet-50', 'classifier': 'ResNet-50'}
# What a mode changes: options of the backbone, and what is done to the model.
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
        'FrozenBN': dict(norm_cfg=dict(type='mmfish.FrozenBN')),
        'FrozenBN, channels-last': dict(norm_cfg=dict(type='mmfish.FrozenBN'), channels_last=True),
        'FrozenBN, channels-last, with_cp': dict(
            norm_cfg=dict(type='mmfish.FrozenBN'), channels_last=True, with_cp=True
        ),
    },
}
# In which ResNet-50 is measured as well; all else is measured as it ships.
RESNET_MODE = {'inference': 'fused, channels-last', 'training': 'FrozenBN, channels-last'}
OPERATORS = 8  # in a profile
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)
RESNET_CHANNELS = (256, 512, 1024, 2048)
HRNET = 'mmdet::hrnet/mask-rcnn_hrnetv2p-w32-1x_coco.py'
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
OTHERS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    'ResNet-50': (dict(type='mmdet.ResNet', depth=50), RESNET_CHANNELS),
    'ResNet-101': (dict(type='mmdet.ResNet', depth=101), RESNET_CHANNELS),
    'ResNeXt-50': (
        dict(type='mmdet.ResNeXt', depth=50, groups=32, base_width=4),
        RESNET_CHANNELS,
    ),
    'Res2Net-50': (
        dict(type='mmdet.Res2Net', depth=50, scales=4, base_width=26),
        RESNET_CHANNELS,
    ),
    'HRNet-W32': (dict(type='mmdet.HRNet'), (32, 64, 128, 256)),
    'DenseNet-161': (
        dict(type='mmpretrain.DenseNet', arch='161', out_indices=(0, 1, 2, 3)),
        (192, 384, 1056, 2208),
    ),
}


@dataclass
class Contestant:
    """Something to measure.

    Attributes:
        name: as it stands in the tables.
        model: with its mode, layout and weights as they are to be measured.
        forward: runs the model once, uncompiled; in training it returns a loss.
        run: the same, compiled or not.
    """

    name: str
    model: nn.Module
    forward: Callable[[], Any]
    run: Callable[[], Any]


@dataclass
class Measurement:
    """Figures of one contestant.

    Attributes:
        name: of the contestant.
        seconds: of a step, the median of the rounds.
        floor: seconds of the model's own convolutions alone, one by one, at the same shapes and
            layout, in training forward and backward; the median of the same rounds.
        macs: multiplications of these convolutions, forward.
        bytes_held: what autograd keeps from forward to backward; None in inference.
        peak_bytes: the most memory that the tensors of a step take beyond what there was before.
        rounds: seconds of each round.
        profile: seconds by operator of one more step, of those that take the most.
    """

    name: str
    seconds: float
    floor: float
    macs: int
    bytes_held: int | None
    peak_bytes: int
    rounds: list[float]
    profile: dict[str, float]


@dataclass
class Run:
    """Contestants measured together, and how: the arguments of `benchmark`."""

    kind: str
    step: str
    arch: str
    batch: int
    size: tuple[int, int]
    keep_memory: bool
    measurements: list[Measurement]

    def __getitem__(self, name: str) -> Measurement:
        """The figures of a contestant; KeyError if it is none."""
        return {m.name: m for m in self.measurements}[name]


def benchmark(
    kind: str = 'backbone',
    step: str = 'inference',
    arch: str = 'fishnet150',
    batch: int = 1,
    size: tuple[int, int] = (800, 1344),
    rounds: int = 5,
    names: Sequence[str] | None = None,
    device: str = 'cpu',
    keep_memory: bool = False,
) -> Run:
    """Measure FishNet in each of its modes, and other networks.

    Args:
        kind: 'backbone', 'detector' (Mask R-CNN with FPN, as MMDetection ships it) or 'classifier'.
        step: 'inference', or 'training': forward and backward, without the optimiser.
        arch: of FishNet.
        batch: images at once.
        size: height and width of the images.
        rounds: that count; one more comes before them.
        names: of the contestants, all by default.
        device: where to run.
        keep_memory: on a CPU, have the process keep the memory that is freed, from now on. By
            default the C library returns large blocks to the kernel, and a good part of each step
            goes into getting pages back.

    Returns:
        The figures of each contestant.

    Raises:
        UsageError: there is no such contestant or device, or nothing to measure.
    """
    if min(batch, rounds, *size) < 1:
        raise UsageError(
            f'batch, rounds, height and width must be at least 1, got {batch}, {rounds}, '
            f'{size[0]} and {size[1]}'
        )
    if device.startswith('cuda') and not torch.cuda.is_available():
        raise UsageError(f'torch {torch.__version__} finds no GPU for --device {device}: use cpu')
    builders = _builders(kind, step, arch)
    unknown = set(names or ()) - builders.keys()
    if unknown:
        raise UsageError(
            f'there is no contestant {min(unknown)!r} for {step} of a {kind}: expected some of '
            f'{"; ".join(builders)}'
        )
    with DefaultScope.overwrite_default_scope('mmpretrain' if kind == 'classifier' else 'mmdet'):
        chosen = [
            _contestant(name, build, kind, step, (batch, 3, *size), device)
            for name, build in builders.items()
            if not names or name in names
        ]
        if keep_memory:
            _keep_memory()
        measurements = _measure(chosen, step == 'training', rounds, torch.device(device))
    return Run(kind, step, arch, batch, size, keep_memory, measurements)


def contestants(kind: str, step: str, arch: str) -> list[str]:
    """The names of all that `benchmark` measures by default."""
    return list(_builders(kind, step, arch))


def convolutions(
    model: nn.Module, forward: Callable[[], Any], training: bool
) -> tuple[list[Callable[[], object]], int]:
    """A model's convolutions, to be run alone.

    Args:
        model: where they are.
        forward: runs it.
        training: with the backward pass of each.

    Returns:
        A function for each time that a convolution ran, for the same shapes and layouts; and the
        multiplications of all, forward.
    """
    calls, macs, inputs = [], 0, {}

    def record(conv: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * conv.weight[0].numel()
        x = args[0]
        key = x.shape, x.stride(), x.requires_grad
        if key not in inputs:  # one for all of a kind, or they would take more than the network
            inputs[key] = torch.randn_like(x).requires_grad_(x.requires_grad)
        calls.append(partial(_convolve, conv, inputs[key], training and output.requires_grad))

    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    handles = [conv.register_forward_hook(record) for conv in convs]
    forward()
    for handle in handles:
        handle.remove()
    return calls, macs


def table(run: Run) -> str:
    """A run as a Markdown table, with ratios to the baseline where it is among the contestants."""
    measurements = run.measurements
    base = next((m for m in measurements if m.name == BASELINE[run.kind]), None)
    training = measurements[0].bytes_held is not None
    head = ['', 'GMACs', 'seconds', 'ratio', 'over its floor']
    head += ['held for backward, MiB', 'ratio'] * training + ['peak, MiB']
    lines = [head, ['---'] * len(head)]
    for m in measurements:
        row = [m.name, f'{m.macs / 1e9:.1f}', f'{m.seconds:.3f}']
        row += [f'{m.seconds / base.seconds:.2f}' if base else '', f'{m.seconds / m.floor:.2f}']
        if training:
            row.append(f'{m.bytes_held / 2**20:.0f}')
            row.append(f'{m.bytes_held / base.bytes_held:.2f}' if base else '')
        row.append(f'{m.peak_bytes / 2**20:.0f}')
        lines.append(row)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def environment(device: str = 'cpu') -> str:
    """What figures depend on: device, threads, versions."""
    if device.startswith('cuda'):
        where = torch.cuda.get_device_name(device)
    else:
        where = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    return f'{where}; torch {torch.__version__}, Python {platform.python_version()}'


def save_json(path: Path, runs: Sequence[Run], device: str) -> None:
    """Write runs, and what their figures depend on."""
    content = dict(environment=environment(device), runs=[asdict(run) for run in runs])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def load_json(path: Path) -> tuple[str, list[Run]]:
    """Read what `save_json` wrote: what the figures depend on, and the runs."""
    content = json.loads(path.read_text())
    runs = []
    for run in content['runs']:
        measurements = [Measurement(**m) for m in run.pop('measurements')]
        runs.append(Run(**{**run, 'size': tuple(run['size'])}, measurements=measurements))
    return content['environment'], runs


def plot(run: Run, out: Path) -> Path:
    """Draw time against multiplications with the floors, or in training the bytes held.

    Args:
        run: what to draw.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        ``out``.
    """
    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout='constrained')
    axes = figure.subplots()
    measurements = run.measurements
    if measurements[0].bytes_held is None:
        top = max(m.seconds for m in measurements) * 1.05
        labels: list[tuple[float, float]] = []  # where they are: GMACs, points
        for m in sorted(measurements, key=lambda m: m.seconds):
            x = m.macs / 1e9
            axes.plot([x, x], [m.floor, m.seconds], color='#bbbbbb', linewidth=1, zorder=1)
            axes.plot(x, m.floor, '_', color='#777777', markersize=12)
            axes.plot(x, m.seconds, 'o', color='C0' if 'FishNet' in m.name else 'C1')
            # No label on top of another: 280 points is about the height of the axes.
            point = m.seconds / top * 280
            height = max([point, *(y + 9 for other, y in labels if abs(x - other) < 20)])
            labels.append((x, height))
            offset = 6, height - point
            axes.annotate(
                m.name, (x, m.seconds), offset, textcoords='offset points', fontsize=7, va='center'
            )
        axes.plot([], [], '_', color='#777777', markersize=12, label='its convolutions alone')
        axes.legend(frameon=False)
        axes.margins(x=0.25)
        axes.set(xlabel='GMACs', ylabel='seconds')
        axes.set_ylim(0, top)
    else:
        names = [m.name for m in measurements][::-1]
        sizes = [m.bytes_held / 2**20 for m in measurements][::-1]
        colours = ['C0' if 'FishNet' in name else 'C1' for name in names]
        bars = axes.barh(names, sizes, color=colours)
        axes.bar_label(bars, fmt='%.0f', padding=3, fontsize=8)
        axes.margins(x=0.12)
        axes.tick_params(axis='y', labelsize=8)
        axes.set_xlabel('held for the backward pass, MiB')
    axes.spines[['top', 'right']].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _builders(kind: str, step: str, arch: str) -> dict[str, Callable[[], tuple[nn.Module, dict]]]:
    """How each contestant's model is made, by name: a model and what is done to it."""
    ours = 'FishNet-' + arch.removeprefix('fishnet') if arch.startswith('fishnet') else arch
    builders = {
        f'{ours}, {mode}': partial(_build_fishnet, kind, arch, changes)
        for mode, changes in MODES[step].items()
        if kind != 'detector' or 'compiled' not in changes  # its heads would compile for minutes
    }
    if kind == 'backbone':
        builders[BASELINE[kind]] = _build_pytorchcv
    for name in OTHERS:
        if kind != 'detector' or name != 'DenseNet-161':
            builders[name] = partial(_build_other, kind, name, {})
    mode = RESNET_MODE[step]
    builders[f'ResNet-50, {mode}'] = partial(_build_other, kind, 'ResNet-50', MODES[step][mode])
    return builders


def _split(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a mode changes: options of the backbone, and what is done to the model."""
    options = dict(changes)
    done = ('fused', 'channels_last', 'compiled')
    return options, {key: options.pop(key) for key in done if key in options}


def _build_fishnet(kind: str, arch: str, changes: dict[str, Any]) -> tuple[nn.Module, dict]:
    options, treatment = _split(changes)
    backbone = dict(type='mmfish.FishNet', arch=arch, **options)
    if kind == 'detector':
        backbone['frozen_stages'] = 0
    elif kind == 'classifier':
        backbone['out_indices'] = (3,)
    with torch.device('meta'):
        channels = MODELS.build(backbone).out_channels
    head = dict(type='mmfish.FishNetClsHead', in_channels=channels[-1])
    model = MODELS.build(_around(kind, backbone, channels, dict(head=head)))
    if kind == 'backbone' and arch == 'fishnet150':  # the numbers that the baseline has
        weights = from_pytorchcv(_pytorchcv_net().state_dict())
        prefix = 'backbone.'
        model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
    return model, treatment


def _build_pytorchcv() -> tuple[nn.Module, dict]:
    features = _pytorchcv_net().features
    return nn.Sequential(features.init_block, features.hg), {}


@cache
def _pytorchcv_net() -> nn.Module:
    try:
        from pytorchcv.model_provider import get_model
    except ImportError as error:
        raise UsageError(
            'the benchmark of backbones needs the package pytorchcv: `pip install pytorchcv`'
        ) from error
    return get_model('fishnet150')


def _build_other(kind: str, name: str, changes: dict[str, Any]) -> tuple[nn.Module, dict]:
    options, treatment = _split(changes)
    if kind == 'detector' and name == 'ResNet-50':
        model = get_config(MASK_RCNN).model
        model.backbone.update(options, init_cfg=None)
        return MODELS.build(model), treatment
    backbone, channels = OTHERS[name]
    backbone = dict(backbone, **options)
    if name == 'HRNet-W32':
        backbone = dict(backbone, extra=get_config(HRNET).model.backbone.extra)
    if kind == 'classifier' and name != 'DenseNet-161':
        backbone = dict(backbone, out_indices=(3,)) if name != 'HRNet-W32' else backbone
    head = dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=channels[-1])
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    return MODELS.build(_around(kind, backbone, channels, dict(neck=neck, head=head))), treatment


def _around(kind: str, backbone: dict, channels: Sequence[int], classifier: dict) -> dict:
    """The config of a backbone alone, in Mask R-CNN, or in a classifier."""
    if kind == 'backbone':
        return backbone
    if kind == 'classifier':
        return dict(type='mmpretrain.ImageClassifier', backbone=backbone, **classifier)
    model = get_config(MASK_RCNN).model
    model.backbone = backbone
    model.neck.in_channels = list(channels)
    return model


def _contestant(
    name: str,
    build: Callable[[], tuple[nn.Module, dict]],
    kind: str,
    step: str,
    shape: tuple[int, int, int, int],
    device: str,
) -> Contestant:
    torch.manual_seed(0)  # for each: it shall not depend on which are asked for
    model, treatment = build()
    training = step == 'training'
    model.train(training)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # fixed in all, as in the paper's recipe
    if treatment.get('fused'):
        model = fuse(model)
    model.to(device)
    if treatment.get('channels_last'):
        model.to(memory_format=torch.channels_last)
    network = _compiled(model) if treatment.get('compiled') else model
    forwards = [_forward(net, kind, training, shape, device) for net in (model, network)]
    return Contestant(name, model, *forwards)


def _compiled(model: nn.Module) -> Callable[[Tensor], Any]:
    """With weights as constants, which is what lets the compiler fuse and reorder them."""
    compiled = torch.compile(model)

    def run(images: Tensor) -> Any:
        # As an option of `torch.compile` it would not reach the convolutions (torch 2.11).
        with inductor.patch(freezing=True):
            return compiled(images)

    return run


def _forward(
    model: nn.Module | Callable, kind: str, training: bool, shape: tuple[int, ...], device: str
) -> Callable[[], Any]:
    if kind == 'detector':
        batch, *image = shape
        packed = demo_mm_inputs(batch, [image] * batch, [8] * batch, num_classes=80, with_mask=True)
        data = model.data_preprocessor(packed, training)
        data['inputs'] = data['inputs'].to(device)
        data['data_samples'] = [sample.to(device) for sample in data['data_samples']]
        mode = 'loss' if training else 'predict'
        run = lambda: model(**copy.copy(data), mode=mode)  # noqa: E731
        return (lambda: model.parse_losses(run())[0]) if training else run
    images = torch.randn(shape, device=device)
    if kind == 'classifier':
        if not training:
            return lambda: model(images)
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(i % 1000).to(device) for i in range(shape[0])]
        return lambda: model(images, samples, mode='loss')['loss']
    if not training:
        return lambda: model(images)
    # The gradient of a sum has no layout of its own, as that of a mean has: none is forced on the
    # network's, which stays in that of its levels as within a detector.
    return lambda: sum(level.sum() for level in _levels(model(images)))


def _levels(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


def _measure(
    contestants: Sequence[Contestant], training: bool, rounds: int, device: torch.device
) -> list[Measurement]:
    gradients = torch.enable_grad if training else torch.no_grad
    seconds: list[list[float]] = [[] for _ in contestants]
    floors: list[list[float]] = [[] for _ in contestants]
    held: list[int | None] = [None] * len(contestants)
    with gradients():
        alone = [convolutions(c.model, c.forward, training) for c in contestants]
        for i, c in enumerate(contestants):
            if training:
                held[i] = bytes_held_for_backward(c.model, forward=c.forward)
        for number in range(rounds + 1):
            for i, c in enumerate(contestants):
                step = _seconds(partial(_step, c, training), device)
                floor = _seconds(lambda calls=alone[i][0]: [call() for call in calls], device)
                c.model.zero_grad(set_to_none=True)
                if number:  # the first round warms up
                    seconds[i].append(step)
                    floors[i].append(floor)
        profiles, peaks = (
            [_once(figure, c, training, device) for c in contestants]
            for figure in (_profile, _peak)
        )
    return [
        Measurement(
            c.name,
            statistics.median(seconds[i]),
            statistics.median(floors[i]),
            alone[i][1],
            held[i],
            peaks[i],
            seconds[i],
            profiles[i],
        )
        for i, c in enumerate(contestants)
    ]


def _step(contestant: Contestant, training: bool) -> None:
    result = contestant.run()
    if training:
        result.backward()


def _once(
    figure: Callable[[Callable[[], object], torch.device], Any],
    contestant: Contestant,
    training: bool,
    device: torch.device,
) -> Any:
    """A figure of one more step."""
    result = figure(partial(_step, contestant, training), device)
    contestant.model.zero_grad(set_to_none=True)
    return result


def _keep_memory() -> None:
    for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        ctypes.CDLL(None).mallopt(parameter, value)


def _convolve(conv: nn.Conv2d, x: Tensor, backward: bool) -> None:
    y = conv.forward(x)
    if backward:
        wanted = [t for t in (x, *conv.parameters()) if t.requires_grad]
        torch.autograd.grad(y, wanted, y.detach())


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != 'cuda':
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000


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


def _profile(run: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds that the operators themselves take on the device, the longest first."""
    with profile() as profiler:
        run()
    time_of = 'self_device_time_total' if device.type == 'cuda' else 'self_cpu_time_total'
    seconds = {e.key: getattr(e, time_of) / 1e6 for e in profiler.key_averages()}
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:OPERATORS])

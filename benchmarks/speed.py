"""Time and memory of FishNet in each of its modes, beside other networks.

All networks of a run take turns in one process, and the median of the rounds counts: whatever else
the machine does meanwhile slows all of them.
"""

import copy
import csv
import ctypes
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
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
from torch.profiler import profile
from torch.utils.benchmark import Timer

from benchmarks.memory import activation_memory
from demo.markdown import markdown_table
from mmfish.checkpoints import from_pytorchcv
from mmfish.errors import UsageError
from mmfish.models.fusion import fuse
from mmfish.registry import MODELS

BASELINE = {'backbone': 'pytorchcv FishNet-150', 'detector': 'ResNet-50'}
# What a mode changes: options of the backbone, and what is done to the model.
TREATMENTS = ('fused', 'channels_last', 'compiled')
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
}
# In which ResNet-50 is measured as well; all else is measured as it ships.
RESNET_MODE = {'inference': 'fused, channels-last', 'training': 'FrozenBN, channels-last'}
OPERATORS = 8  # in a profile
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
        kind: 'backbone', or 'detector' (Mask R-CNN with FPN, as MMDetection ships it).
        step: 'inference', or 'training': forward and backward, without the optimiser.
        arch: of FishNet.
        batch: images at once.
        height: of the images, in pixels.
        width: likewise.
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
    keep_memory: bool = False


@dataclass
class Measurement:
    """Figures of one network.

    Attributes:
        seconds: of a step.
        lower_bound: seconds of the model's own convolutions alone, one by one, at the same shapes
            and in the same layout, in training forward and backward.
        macs: multiply-adds of these convolutions, forward.
        peak_bytes: the most memory that the tensors of a step take beyond what there was before.
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
        run: the same, compiled or not.
    """

    model: nn.Module
    forward: Callable[[], Any]
    run: Callable[[], Any]


def benchmark(
    setting: Setting,
    names: Sequence[str] | None = None,
    rounds: int = 5,
    device: str = 'cpu',
) -> Run:
    """Measure FishNet in each of its modes, and other networks.

    Args:
        setting: what to measure. With ``keep_memory`` the process keeps it until it ends.
        names: of the networks, all of `network_names` by default.
        rounds: in each, every network has its turn.
        device: where to run.

    Returns:
        The figures of each network.

    Raises:
        UsageError: there is no such network or device, or nothing to measure.
    """
    if min(setting.batch, rounds, setting.height, setting.width) < 1:
        raise UsageError(
            f'batch, rounds, height and width must be at least 1, got {setting.batch}, {rounds}, '
            f'{setting.height} and {setting.width}'
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
    with DefaultScope.overwrite_default_scope('mmdet'):
        networks = {
            name: _network(build, setting, device)
            for name, build in builders.items()
            if not names or name in names
        }
        if setting.keep_memory:
            for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
                ctypes.CDLL(None).mallopt(parameter, value)
        return _measure(networks, setting.step == 'training', rounds, torch.device(device))


def network_names(setting: Setting) -> list[str]:
    """The names of all that `benchmark` measures by default."""
    return list(_builders(setting))


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
        multiply-adds of all, forward.
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
    """A run in Markdown, with ratios to the baseline of its kind where that has been measured."""
    base = next((run[name] for name in BASELINE.values() if name in run), None)
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


def environment(device: str = 'cpu') -> str:
    """What figures depend on: device, threads, versions."""
    if device.startswith('cuda'):
        where = torch.cuda.get_device_name(device)
    else:
        where = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    return f'{where}; torch {torch.__version__}, Python {platform.python_version()}'


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


def read_csv(path: Path) -> tuple[set[str], dict[Setting, Run]]:
    """Read what `add_to_csv` wrote: the environments, and the runs."""
    environments: set[str] = set()
    runs: dict[Setting, Run] = {}
    with path.open(newline='') as file:
        for row in csv.DictReader(file):
            environments.add(row['environment'])
            settings = {f.name: row[f.name] for f in fields(Setting)}
            whole = ('batch', 'height', 'width', 'keep_memory')
            setting = Setting(**settings | {key: int(row[key]) for key in whole})
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


def _builders(setting: Setting) -> dict[str, Callable[[], tuple[nn.Module, dict]]]:
    """How each network is made, by name: a function that returns it and what is done to it."""
    kind, arch, modes = setting.kind, setting.arch, MODES[setting.step]
    builders = {
        f'{arch.replace("fishnet", "FishNet-")}, {mode}': partial(
            _build_fishnet, kind, arch, **changes
        )
        for mode, changes in modes.items()
        if kind != 'detector' or 'compiled' not in changes  # its heads would compile for minutes
    }
    if kind == 'backbone':
        builders[BASELINE[kind]] = _build_pytorchcv
    for name in OTHERS:
        if kind != 'detector' or name != 'DenseNet-161':
            builders[name] = partial(_build_other, kind, name)
    mode = RESNET_MODE[setting.step]
    builders[f'ResNet-50, {mode}'] = partial(_build_other, kind, 'ResNet-50', **modes[mode])
    return builders


def _build_fishnet(kind: str, arch: str, **changes: Any) -> tuple[nn.Module, dict]:
    treatment = {key: changes.pop(key) for key in TREATMENTS if key in changes}
    if kind == 'detector':
        changes['frozen_stages'] = 0
    backbone = dict(type='mmfish.FishNet', arch=arch, **changes)
    with torch.device('meta'):
        channels = MODELS.build(backbone).out_channels
    model = MODELS.build(_around(kind, backbone, channels))
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


def _build_other(kind: str, name: str, **changes: Any) -> tuple[nn.Module, dict]:
    treatment = {key: changes.pop(key) for key in TREATMENTS if key in changes}
    backbone, channels = OTHERS[name]
    if kind == 'detector' and name == 'ResNet-50':  # frozen stages and all
        backbone = dict(get_config(MASK_RCNN).model.backbone, init_cfg=None)
    elif name == 'HRNet-W32':
        backbone = dict(backbone, extra=get_config(HRNET).model.backbone.extra)
    return MODELS.build(_around(kind, dict(backbone, **changes), channels)), treatment


def _around(kind: str, backbone: dict, channels: Sequence[int]) -> dict:
    """The config of a backbone alone, or in Mask R-CNN."""
    if kind == 'backbone':
        return backbone
    model = get_config(MASK_RCNN).model
    model.backbone = backbone
    model.neck.in_channels = list(channels)
    return model


def _network(build: Callable[[], tuple[nn.Module, dict]], setting: Setting, device: str) -> Network:
    torch.manual_seed(0)  # for each: it shall not depend on which are asked for
    model, treatment = build()
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
        run, timers = {}, {}
        for name, net in networks.items():
            calls, macs = convolutions(net.model, net.forward, training)
            held = activation_memory(net.model, forward=net.forward) if training else 0
            run[name] = Measurement(0, 0, macs, 0, held)
            alone = lambda calls=calls: [call() for call in calls]  # noqa: E731
            timers[name] = [_timer(partial(_step, net, training)), _timer(alone)]
        times = [
            {name: [timer.timeit(1).median for timer in timers[name]] for name in networks}
            for _ in range(rounds)
        ]
        for name, net in networks.items():
            of_this = zip(*(seconds[name] for seconds in times), strict=True)
            run[name].seconds, run[name].lower_bound = map(statistics.median, of_this)
            step = partial(_step, net, training)
            run[name].operators = _operators(step, device)
            run[name].peak_bytes = _peak(step, device)
    return run


def _timer(run: Callable[[], object]) -> Timer:
    return Timer('run()', globals=dict(run=run), num_threads=torch.get_num_threads())


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
    seconds = {e.key.strip('# '): getattr(e, time_of) / 1e6 for e in profiler.key_averages()}
    return dict(sorted(seconds.items(), key=lambda item: -item[1])[:OPERATORS])

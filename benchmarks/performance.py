"""The page of measurements: which runs of the benchmark it has, and what it says of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed import (
    RESNET_MODE,
    Measurement,
    Run,
    benchmark,
    contestants,
    environment,
    load_json,
    plot,
    save_json,
    table,
)
from mmfish.errors import UsageError

FULL = (800, 1344)  # an image of COCO as the recipe has it
SMALL = (224, 224)
FUSED = 'FishNet-150, fused, channels-last'
COMPILED = 'FishNet-150, compiled'
FROZEN = 'FishNet-150, FrozenBN, channels-last'
RECOMPUTED = 'FishNet-150, FrozenBN, channels-last, with_cp'
RELEASED = 'pytorchcv FishNet-150'
RESNET = 'ResNet-50'
RESNET_FUSED = f'{RESNET}, {RESNET_MODE["inference"]}'
RESNET_FROZEN = f'{RESNET}, {RESNET_MODE["training"]}'
CHANNELS_LAST = 'FishNet-150, channels-last'


def _growing(step: str) -> Iterator[dict[str, Any]]:
    for arch, batch, size in (
        *(('150', batch, SMALL) for batch in (1, 2, 4, 8)),
        *(('150', 1, (side, side)) for side in (448, 896, 1344)),
        *((arch, 1, SMALL) for arch in ('99', '201')),
    ):
        names = [f'{network}, {RESNET_MODE[step]}' for network in (f'FishNet-{arch}', RESNET)]
        yield dict(step=step, arch=f'fishnet{arch}', batch=batch, size=size, names=names)


INFERENCE = dict(step='inference', size=FULL)
TRAINING = dict(step='training', size=FULL)
DETECTOR = dict(
    kind='detector',
    step='training',
    size=FULL,
    names=[FROZEN, RECOMPUTED, RESNET, RESNET_FROZEN],
)
# The runs that the aims are about, and the same with memory kept.
MEASURED = [INFERENCE, TRAINING, DETECTOR]
KEPT = [
    {**INFERENCE, 'names': [CHANNELS_LAST, FUSED, COMPILED, RELEASED, RESNET, RESNET_FUSED]},
    {**TRAINING, 'names': [FROZEN, RECOMPUTED, RELEASED, RESNET, RESNET_FROZEN]},
    DETECTOR,
]
GROWTH = [*_growing('inference'), *_growing('training')]


@dataclass
class Aim:
    """A ratio that was to be reached.

    Attributes:
        figure: in words.
        run: in which it was measured.
        at_most: what it must not be above.
        aim: what was hoped for.
        ratio: the figure itself.
    """

    figure: str
    run: dict[str, Any]
    at_most: float
    aim: float
    ratio: Callable[[Run], float]


def _over(name: str, base: str, figure: str = 'seconds') -> Callable[[Run], float]:
    return lambda run: getattr(run[name], figure) / getattr(run[base], figure)


AIMS = [
    Aim('inference, fused, channels-last: time', INFERENCE, 0.60, 0.50, _over(FUSED, RELEASED)),
    Aim('inference, compiled: time', INFERENCE, 0.47, 0.42, _over(COMPILED, RELEASED)),
    Aim(
        'the same over its own convolutions alone',
        INFERENCE,
        1.30,
        1.15,
        lambda run: run[COMPILED].seconds / run[COMPILED].floor,
    ),
    Aim(
        'training with FrozenBN, channels-last: time', TRAINING, 0.78, 0.70, _over(FROZEN, RELEASED)
    ),
    Aim(
        'the same: bytes held for backward',
        TRAINING,
        0.59,
        0.50,
        _over(FROZEN, RELEASED, 'bytes_held'),
    ),
    Aim(
        'the same with `with_cp`: bytes',
        TRAINING,
        0.25,
        0.20,
        _over(RECOMPUTED, RELEASED, 'bytes_held'),
    ),
    Aim(
        'the same with `with_cp` over without: time',
        TRAINING,
        1.35,
        1.35,
        _over(RECOMPUTED, FROZEN),
    ),
    Aim(
        'Mask R-CNN, training step, over that with ResNet-50: time',
        DETECTOR,
        1.10,
        1.00,
        _over(FROZEN, RESNET),
    ),
    Aim(
        'the same: bytes held for backward',
        DETECTOR,
        1.05,
        1.00,
        _over(FROZEN, RESNET, 'bytes_held'),
    ),
    Aim(
        'Mask R-CNN with `with_cp`, over that with ResNet-50: time',
        DETECTOR,
        1.10,
        1.00,
        _over(RECOMPUTED, RESNET),
    ),
    Aim(
        'the same: bytes',
        DETECTOR,
        1.05,
        1.00,
        _over(RECOMPUTED, RESNET, 'bytes_held'),
    ),
]

PAGE = """# Performance

Made by `python tools/benchmark.py --page docs/performance.md --json docs/performance.json`, which
takes about an hour on two CPU cores, writes each run as soon as it is there and does none twice.
Other settings: `python tools/benchmark.py --help`; on a GPU: `--device cuda`.

Measured on: {environment}, single precision.
All networks of a table take turns in one process, and the median of {rounds} rounds counts, after
one to warm up; ratios between them are steadier than the seconds.

- GMACs: multiplications of the convolutions of one forward pass.
- Its floor: the time of the network's own convolutions, run one by one at the same shapes and
  layout, in training forward and backward. A compiler may choose another layout, and go below it.
- Held for backward: what autograd keeps from the forward for the backward pass.
- Peak: the most memory that the tensors of a step take on top of model and images.

pytorchcv's FishNet-150 in its default layout does what the authors' release does, operation by
operation. The others are measured as they ship, and ResNet-50 in the modes of FishNet too: they
are not for FishNet alone. In training BatchNorm is fixed in all, as in the paper's recipe.

## In short

Ratios, to pytorchcv's FishNet-150 where nothing else is said, one image of 800x1344. "At most" and
"aim" are what was set out for; what is above the first is in bold:

{aims}
{allocator}
Where an aim is missed, the profiles below show what is in the way: the convolutions themselves, and
then operations that only move memory. Tried and not kept, for inference: clamping a few rows at a
time for the convolution that follows, which gains 5 %; for training: compiling everything else,
folding BatchNorm into the weights, BatchNorm and ReLU in one function, each 2 % or less. Mask R-CNN
has more GMACs with FishNet-150 than with ResNet-50, and FishNet's first stage is trained as in the
paper, where that of ResNet-50 is frozen.

## Switching it on

- Fixed BatchNorm: `norm_cfg=dict(type='mmfish.FrozenBN')` of the backbone, as the COCO configs have
  it. The scope is needed: plain `FrozenBN` is MMDetection's own layer, which takes longer and does
  not load BatchNorm's `num_batches_tracked`.
- Channels-last: `--channels-last` of `tools/train.py` and `tools/test.py`, or the hook
  `mmfish.ChannelsLastHook`.
- Folded BatchNorm: `--fuse-conv-bn` of `tools/test.py`, or `model = mmfish.fuse(model)`.
  FishNet's comes before its convolutions: half of it goes into them, half becomes a clamp.
- Recomputation: `with_cp=True` of the backbone. It recomputes whole stages, for which half as much
  is held as for recomputing block by block (892 MiB at 800x1344, and see "Training"). Of the peak
  less is saved: the activations of a stage and the gradients come on top of what is held. It works
  compiled too, and in eval mode nothing is recomputed.
- Mixed precision: `--amp` of `tools/train.py`.
- Compiled training: `--cfg-options compile=True`, which is MMEngine's. Backbone and neck are one
  graph each; MMDetection's heads are many, and are compiled again as the number of proposals
  changes, so that a detector needs minutes of compiling first. The gain has been measured for the
  backbone alone, where it is 2 %.
- Compiled inference: `model.backbone = torch.compile(model.backbone)` after `mmfish.fuse`, with
  `TORCHINDUCTOR_FREEZING=1` in the environment: the compiler then lays weights out as its
  convolutions want them, and an option of `torch.compile` does not reach them (torch 2.11).

## Inference

{inference}

![Time against multiplications of each network, and of its convolutions alone](images/time.png)

Where the time goes, in milliseconds of one step:

{inference_profile}

## Training

Forward and backward, normalisation fixed everywhere.

{training}

![Bytes held for the backward pass by each network](images/memory.png)

{training_profile}

## Mask R-CNN

As MMDetection ships it with ResNet-50 and FPN, and with FishNet-150 in its place: a training step
with 8 objects in one image of 800x1344, without the optimiser.

{detector}

{detector_profile}
{kept}
## How the cost grows

FishNet fused and in channels-last for inference, with FrozenBN and in channels-last for training;
in brackets ResNet-50 in the same mode beside it.

{growth}
"""


ALLOCATOR = """
On a CPU time depends on the allocator, so it is measured twice. As Linux comes, the C library
returns large blocks to the kernel, and getting their pages back takes up to a third of a step, the
more the more memory a network takes: inference stays like that, training settles after some ten
steps. "Memory kept" is without that, as with
`MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=16000000000` in the environment or under jemalloc, and as
on a GPU, whose allocator keeps memory anyway. The machine is a virtual one: repeated there, ratios
of inference moved by up to 0.1, of training by up to 0.2, once by 0.5 (Mask R-CNN with `with_cp`),
and those of bytes by less than 0.01.
"""
WITH_MEMORY_KEPT = """
## With memory kept

Inference, training and Mask R-CNN once more.

{tables}
"""


def make_page(out: Path, data: Path, rounds: int = 5, device: str = 'cpu') -> None:
    """Measure what is missing, and write the page and its two plots.

    Args:
        out: the page. The plots go to ``images/`` beside it.
        data: JSON of the runs. Those already there are not measured again; the others are added
            as they end.
        rounds: of each run that is measured.
        device: where to measure. On a CPU what the aims are about is measured twice, with memory
            kept too.

    Raises:
        UsageError: what is in ``data`` was measured with other versions or on another device.
    """
    done: list[Run] = []
    if data.exists():
        where, done = load_json(data)
        if where != environment(device):
            raise UsageError(
                f'the figures in {data} are of another environment ({where}) than this one '
                f'({environment(device)}): give another --json, or remove the file'
            )

    def run_of(settings: dict[str, Any], keep_memory: bool = False) -> Run:
        found = next((run for run in done if _is(run, settings, keep_memory)), None)
        if found is None:
            found = benchmark(**settings, rounds=rounds, device=device, keep_memory=keep_memory)
            done.append(found)
            save_json(data, done, device)
        return found

    measured = inference, training, detector = [run_of(settings) for settings in MEASURED]
    growth = [run_of(settings) for settings in GROWTH]
    # Last: the process keeps its memory from here.
    kept = [] if device != 'cpu' else [run_of(settings, keep_memory=True) for settings in KEPT]
    page = PAGE.format(
        environment=environment(device),
        rounds=len(inference.measurements[0].rounds),
        aims=_aims([measured, kept] if kept else [measured]),
        allocator=ALLOCATOR if kept else '',
        inference=table(inference),
        inference_profile=_profiles(inference, [RELEASED, FUSED, COMPILED]),
        training=table(training),
        training_profile=_profiles(training, [RELEASED, FROZEN]),
        detector=table(detector),
        detector_profile=_profiles(detector, [RESNET, FROZEN]),
        kept=WITH_MEMORY_KEPT.format(tables='\n\n'.join(map(table, kept))) if kept else '',
        growth=_growth(growth),
    )
    plot(inference, out.parent / 'images' / 'time.png')
    plot(training, out.parent / 'images' / 'memory.png')
    out.write_text(page)


def _is(run: Run, settings: dict[str, Any], keep_memory: bool) -> bool:
    """Whether a run is the one that these arguments of `benchmark` ask for."""
    same = dict(kind='backbone', arch='fishnet150', batch=1, keep_memory=keep_memory) | settings
    names = same.pop('names', None) or contestants(same['kind'], same['step'], same['arch'])
    return all(getattr(run, key) == value for key, value in same.items()) and (
        {m.name for m in run.measurements} == set(names)
    )


def _aims(columns: list[list[Run]]) -> str:
    """The ratios asked for, in each column of runs as in `MEASURED`."""
    heads = ['measured', 'memory kept'][: len(columns)]
    lines = [
        '| figure | at most | aim | ' + ' | '.join(heads) + ' |',
        '|---' + '|--:' * (2 + len(heads)) + '|',
    ]
    for aim in AIMS:
        cells = [f'{aim.at_most:.2f}', f'{aim.aim:.2f}']
        for runs in columns:
            ratio = round(aim.ratio(runs[MEASURED.index(aim.run)]), 2)
            cells.append(f'{ratio:.2f}' if ratio <= aim.at_most else f'**{ratio:.2f}**')
        lines.append(f'| {aim.figure} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _profiles(run: Run, names: list[str]) -> str:
    """Operators side by side: those that take the most in each."""
    lines = ['| ' + ' | '.join(['', *names]) + ' |', '|---' + '|--:' * len(names) + '|']
    profiles = [run[name].profile for name in names]
    for operator in dict.fromkeys(key for profile in profiles for key in profile):
        cells = (f'{p[operator] * 1000:.0f}' if operator in p else '' for p in profiles)
        lines.append(f'| `{operator.strip("# ")}` | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _growth(runs: list[Run]) -> str:
    lines = [
        '| arch | images | size | inference, s | training, s | held for backward, MiB |',
        '|---|--:|--:|--:|--:|--:|',
    ]
    for inference in (run for run in runs if run.step == 'inference'):
        settings = (inference.arch, inference.batch, inference.size)
        training = next(
            run
            for run in runs
            if run.step == 'training' and (run.arch, run.batch, run.size) == settings
        )
        lines.append(
            f'| {inference.arch} | {inference.batch} | {inference.size[0]}x{inference.size[1]} | '
            f'{_both(inference, lambda m: f"{m.seconds:.3f}")} | '
            f'{_both(training, lambda m: f"{m.seconds:.3f}")} | '
            f'{_both(training, lambda m: f"{m.bytes_held / 2**20:.0f}")} |'
        )
    return '\n'.join(lines)


def _both(run: Run, figure: Callable[[Measurement], str]) -> str:
    ours, resnet = run.measurements
    return f'{figure(ours)} ({figure(resnet)})'

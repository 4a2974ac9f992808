"""The tables of docs/performance.md: of which runs they are, and how they are made."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.speed import (
    RELEASED,
    RESNET_MODES,
    Run,
    Setting,
    add_to_csv,
    baseline,
    benchmark,
    environment,
    network_names,
    plot,
    read_csv,
    table,
)
from demo.markdown import fill_page, markdown_table
from mmfish.errors import UsageError

FUSED = 'FishNet-150, fused, channels-last'
COMPILED = 'FishNet-150, compiled'
FROZEN = 'FishNet-150, FrozenBN, channels-last'
RECOMPUTED = 'FishNet-150, FrozenBN, channels-last, with_cp'
RESNET = 'ResNet-50'

INFERENCE = Setting()
TRAINING = Setting(step='training')
DETECTOR = Setting(kind='detector', step='training')
DETECTORS = [FROZEN, RECOMPUTED, RESNET, f'{RESNET}, {RESNET_MODES["training"][0]}']
# With memory kept, by the setting without.
KEPT = {
    INFERENCE: [
        'FishNet-150, channels-last',
        *(FUSED, COMPILED, RELEASED, RESNET),
        f'{RESNET}, {RESNET_MODES["inference"][0]}',
    ],
    TRAINING: [FROZEN, RECOMPUTED, RELEASED, RESNET, f'{RESNET}, {RESNET_MODES["training"][0]}'],
    DETECTOR: DETECTORS,
}
TITLES = {INFERENCE: 'inference', TRAINING: 'training', DETECTOR: 'Mask R-CNN'}
# Of exported files, by kind: heights, widths and threads. Memory is measured in the first.
SIZES = dict(
    backbone=((800, 1344, 2), (800, 1344, 1), (224, 224, 2), (224, 224, 1)),
    classifier=((224, 224, 2), (224, 224, 1)),
    detector=((800, 1344, 2), (224, 224, 2), (224, 224, 1)),
)
EXPORTED = {
    kind: [
        Setting(kind, 'exported', height=height, width=width, threads=threads)
        for height, width, threads in sizes
    ]
    for kind, sizes in SIZES.items()
}
PROFILED = ['FishNet-150, ONNX Runtime', 'FishNet-150, OpenVINO', 'FishNet-150, OpenVINO, bf16']
# Of how the cost grows: arch, batch, side of the image.
GROWTH = [
    *(('fishnet150', batch, 224) for batch in (1, 2, 4, 8)),
    *(('fishnet150', 1, side) for side in (448, 896, 1344)),
    *((arch, 1, 224) for arch in ('fishnet99', 'fishnet201')),
]
# Ratios: what, of which run, which figure, of which network, over that of which other.
TIME, MEMORY = 'seconds', 'activation_bytes'
RATIOS = [
    ('inference, fused, channels-last: time', INFERENCE, TIME, FUSED, RELEASED),
    ('inference, compiled: time', INFERENCE, TIME, COMPILED, RELEASED),
    ('training with FrozenBN, channels-last: time', TRAINING, TIME, FROZEN, RELEASED),
    ('the same: activation memory', TRAINING, MEMORY, FROZEN, RELEASED),
    ('the same with `with_cp`: activation memory', TRAINING, MEMORY, RECOMPUTED, RELEASED),
    ('the same with `with_cp`, over without: time', TRAINING, TIME, RECOMPUTED, FROZEN),
    ('Mask R-CNN, training step, over that with ResNet-50: time', DETECTOR, TIME, FROZEN, RESNET),
    ('the same: activation memory', DETECTOR, MEMORY, FROZEN, RESNET),
    ('the same with `with_cp`: time', DETECTOR, TIME, RECOMPUTED, RESNET),
    ('the same with `with_cp`: activation memory', DETECTOR, MEMORY, RECOMPUTED, RESNET),
]


def update_page(page: Path, figures: Path, rounds: int = 5, device: str = 'cpu') -> None:
    """Measure what is missing, and write the tables and plots of the page.

    Args:
        page: with a place for each table. The plots go to ``images/`` beside it.
        figures: CSV of the runs. What it has is not measured again, what is measured is added.
        rounds: of each run that is measured.
        device: where to measure.

    Raises:
        UsageError: what is missing would be measured with other versions or on another device than
            the rest, or the page has no place for a table.
    """
    for setting, names in page_runs():
        environments, runs = read_csv(figures) if figures.exists() else ({}, {})
        if runs.get(setting, {}).keys() >= set(names):
            continue
        here = environment(setting, device)
        others = set().union(
            *(where for s, where in environments.items() if _same_tables(s, setting))
        ) - {here}
        if others:
            raise UsageError(
                f'{figures} has figures of another environment ({"; ".join(others)}) than '
                f'this one ({here}): give another --csv, or remove the file'
            )
        rss = any(setting == settings[0] for settings in EXPORTED.values())
        add_to_csv(figures, setting, benchmark(setting, names, rounds, device, rss), here)
    runs = read_csv(figures)[1]
    fill_page(page, page_tables(runs))
    plot(runs[INFERENCE], page.parent / 'images' / 'time.png')
    plot(runs[TRAINING], page.parent / 'images' / 'memory.png')


def _same_tables(one: Setting, other: Setting) -> bool:
    """Whether figures of two settings are compared: those of exported files only with others."""
    return (one.step == 'exported') == (other.step == 'exported')


def page_runs() -> Iterator[tuple[Setting, list[str]]]:
    """The settings that the page needs, and the networks in each."""
    for setting in TITLES:
        yield setting, DETECTORS if setting == DETECTOR else network_names(setting)
    for settings in EXPORTED.values():
        for setting in settings:
            yield setting, network_names(setting)
    for setting in growth_settings():
        yield setting, [f'{name}, {RESNET_MODES[setting.step][0]}' for name in _pair(setting)]
    # Last: the process keeps its memory from here.
    for setting, names in KEPT.items():
        yield replace(setting, keep_memory=True), names


def growth_settings() -> list[Setting]:
    """The settings of `GROWTH`, those of inference first."""
    return [
        Setting(step=step, arch=arch, batch=batch, height=side, width=side)
        for step in ('inference', 'training')
        for arch, batch, side in GROWTH
    ]


def page_tables(runs: dict[Setting, Run]) -> dict[str, str]:
    """The tables of the page in Markdown, by name.

    Args:
        runs: all of `page_runs`.
    """
    tables = {'in short': _ratios(runs), 'growth': _growth(runs)}
    for setting, title in TITLES.items():
        kept = replace(setting, keep_memory=True)
        tables[title] = table(setting, runs[setting])
        tables[f'{title}, memory kept'] = table(kept, runs[kept])
    for kind, settings in EXPORTED.items():
        tables[f'exported {kind}'] = _exported(settings, runs)
        tables[f'exported {kind}, operators'] = _operators(runs[settings[0]], PROFILED)
    compared = {
        INFERENCE: [RELEASED, FUSED, COMPILED],
        TRAINING: [RELEASED, FROZEN],
        DETECTOR: [RESNET, FROZEN],
    }
    for setting, names in compared.items():
        tables[f'{TITLES[setting]}, operators'] = _operators(runs[setting], names)
    return tables


def _ratios(runs: dict[Setting, Run]) -> str:
    rows = []
    for words, setting, figure, name, base in RATIOS:
        both = (runs[setting], runs[replace(setting, keep_memory=True)])
        ratios = (getattr(run[name], figure) / getattr(run[base], figure) for run in both)
        rows.append([words, *(f'{ratio:.2f}' for ratio in ratios)])
    return markdown_table(['ratio', 'as Linux comes', 'memory kept'], rows, numbers=2)


def _exported(settings: list[Setting], runs: dict[Setting, Run]) -> str:
    """Seconds of each network in each setting, and their ratio; the rest in the first."""
    first = settings[0]
    head = ['']
    for setting in settings:
        threads = f'{setting.threads} thread{"s" * (setting.threads > 1)}'
        head.append(f'{setting.height}x{setting.width}, {threads}: s (ratio)')
    head += ['over the lower bound', 'peak RSS, MiB']
    rows = []
    for name, measured in runs[first].items():
        row = [name]
        for setting in settings:
            run = runs[setting]
            seconds = run[name].seconds if name in run else None
            ratio = seconds and seconds / run[baseline(setting)].seconds
            row.append(f'{seconds:.3f} ({ratio:.2f})' if seconds else '')
        row.append(f'{measured.seconds / measured.lower_bound:.2f}')
        rows.append([*row, f'{measured.peak_bytes / 2**20:.0f}'])
    return markdown_table(head, rows, numbers=len(head) - 1)


def _operators(run: Run, names: list[str]) -> str:
    """Milliseconds by operator, side by side: those that take the most in each."""
    columns = [run[name].operators for name in names]
    rows = [
        [f'`{operator}`', *(f'{c[operator] * 1000:.0f}' if operator in c else '' for c in columns)]
        for operator in dict.fromkeys(key for column in columns for key in column)
    ]
    return markdown_table(['', *names], rows, numbers=len(names))


def _growth(runs: dict[Setting, Run]) -> str:
    rows = []
    for setting in growth_settings()[: len(GROWTH)]:
        inference, training = runs[setting], runs[replace(setting, step='training')]
        columns = (
            [f'{m.seconds:.3f}' for m in inference.values()],
            [f'{m.seconds:.3f}' for m in training.values()],
            [f'{m.activation_bytes / 2**20:.0f}' for m in training.values()],
        )
        size = f'{setting.height}x{setting.width}'
        cells = (f'{ours} ({resnet})' for ours, resnet in columns)
        rows.append([setting.arch, str(setting.batch), size, *cells])
    head = ['arch', 'images', 'size', 'inference, s', 'training, s', 'activation memory, MiB']
    return markdown_table(head, rows, numbers=5)


def _pair(setting: Setting) -> tuple[str, str]:
    return setting.arch.replace('fishnet', 'FishNet-'), RESNET

"""The tables and the curves of docs/claim.md, from the records."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.mini.components import LOOKED_AT
from benchmarks.mini.plan import CONDITIONS, DATA, DETECTORS, NETWORKS, VARIANTS, Run, search, seeds
from benchmarks.mini.runs import AP, Records
from demo.markdown import fill_page, markdown_table

NOT_RUN = 'Not run yet.'
SIZES = {'AP': '', 'AP50': '_50', 'S': '_s', 'M': '_m', 'L': '_l'}

# What a cell is made of: the records of all seeds of a row.
Seeds = list[dict[str, Any]]
Column = Callable[[Seeds], str]


def write_page(page: Path, records: Records) -> None:
    """Put the tables into a page, and the curves into ``images/claim.png`` beside it.

    Args:
        page: with the places of the tables (`fill_page`).
        records: as `read_records` returns them. What has none is left out.
    """
    drawn = draw_curves(records, page.parent / 'images/claim.png')
    curves = '![Mask AP against iterations and seconds](images/claim.png)' if drawn else NOT_RUN
    fill_page(page, {**tables(records), 'curves': curves})


def tables(records: Records) -> dict[str, str]:
    """Markdown by the name of its place in the page."""

    def table(rows: Mapping[str, list[Run]], columns: Mapping[str, Column]) -> str:
        cells = []
        for name, runs in rows.items():
            done = [records[run.name] for run in runs if run.name in records]
            if done:
                cells.append([name, str(len(done)), *(column(done) for column in columns.values())])
        head = ['', 'runs', *columns]
        return markdown_table(head, cells, numbers=len(head) - 1) if cells else NOT_RUN

    aps = {
        f'{kind} {name}': _ap(f'coco/{metric}_mAP{size}')
        for kind, metric in (('box', 'bbox'), ('mask', 'segm'))
        for name, size in SIZES.items()
    }
    both = {name: aps[name] for name in ('box AP', 'mask AP')}
    networks = NETWORKS.items()
    variants = {f'FishNet-150, {v}': seeds('fishnet150', 'scratch', variant=v) for v in VARIANTS}
    found = {
        condition: {
            f'{name}, {DETECTORS[detector]}, {data}': seeds(network, condition, detector, data)
            for detector in DETECTORS
            for data in DATA
            for network, name in networks
        }
        for condition in CONDITIONS
    }
    costs = {f'{name}, {c}': seeds(network, c) for c in CONDITIONS for network, name in networks}
    rates = {
        f'{name}, {condition}, {run.rate[0]:g}, backbone x{run.rate[1]}': [run]
        for condition in CONDITIONS
        for network, name in networks
        for run in search(network, condition)
    }
    classifiers = {name: [Run(network, 'fashion-mnist')] for network, name in networks}
    plain = {name: seeds(network, 'scratch') for network, name in networks}
    return {
        **{condition: table(rows, aps) for condition, rows in found.items()},
        'cost': table(costs, COSTS),
        'start': table({**plain, **variants}, {**both, **STARTS}),
        'classification': table(classifiers, {'top-1, %': _mean('top1')}),
        'rates': table(rates, both),
    }


def draw_curves(records: Records, out: Path) -> bool:
    """Draw mask AP on nuclei against iterations and against seconds, a line for each training.

    Args:
        records: as `read_records` returns them.
        out: the PNG to write. Its folder is made where there is none.

    Returns:
        Whether there was anything to draw.
    """
    figure = Figure(figsize=(11, 7.5), dpi=110, layout='constrained')
    panels = figure.subplots(len(CONDITIONS), 2, sharey=True)
    for row, (condition, title) in zip(panels, CONDITIONS.items(), strict=True):
        for axes, unit in zip(row, ('iteration', 'seconds'), strict=True):
            for i, (network, label) in enumerate(NETWORKS.items()):
                for run in seeds(network, condition):
                    curve = records.get(run.name, {}).get('curve', [])
                    points = [(point[unit], 100 * point[AP[1]]) for point in curve]
                    if points:
                        axes.plot(*zip(*points, strict=True), f'C{i}.-', label=label)
                        label = None  # one line of each network is enough in the legend
            axes.set(title=title, xlabel=f'{unit} of training', ylabel='mask AP', ylim=(0, None))
            axes.grid(color='#e4e4e4')
    drawn = [axes for axes in panels.flat if axes.lines]
    if drawn:
        drawn[0].legend(frameon=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)
    return bool(drawn)


def _mean(name: str, scale: float = 1, digits: int = 2, *, per_ap: bool = False) -> Column:
    """A column with the mean of a field in units of ``scale``, or of it by points of box AP."""

    def column(seeds: Seeds) -> str:
        aps = [100 * record['metrics'].get(AP[0], 0) if per_ap else 1 for record in seeds]
        values = [record[name] for record in seeds]
        if None in values or 0 in aps:
            return ''
        shares = [value / ap for value, ap in zip(values, aps, strict=True)]
        return f'{mean(shares) / scale:.{digits}f}'

    return column


def _ap(metric: str) -> Column:
    """A column with the mean over seeds in percent, and their range.

    A training that diverged, or that finds nothing, has no metrics: its AP is 0.
    """

    def column(seeds: Seeds) -> str:
        values = [
            100 * record['metrics'].get(metric, -1 if record['metrics'] else 0) for record in seeds
        ]
        values = [value for value in values if value >= 0]  # pycocotools: -1 without such objects
        if len(values) < 2:
            return ''.join(f'{value:.1f}' for value in values)
        return f'{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})'

    return column


COSTS = {
    'backbone, M parameters': _mean('backbone_parameters', 1e6),
    'detector, M': _mean('parameters', 1e6),
    'GMACs': _mean('macs', 1e9),
    's/iteration': _mean('seconds_per_iteration'),
    'peak, MiB': _mean('memory', 2**20, 0),
    'MMACs per box AP': _mean('macs', 1e6, 0, per_ap=True),
    's of training per box AP': _mean('training_seconds', 1, 1, per_ap=True),
    'MiB per box AP': _mean('memory', 2**20, 0, per_ap=True),
}
STARTS = {
    f'{what}, {i} iterations': _mean(f'{field}_{i}', 1, digits)
    for i in LOOKED_AT
    for what, field, digits in (
        ('gradient norm', 'gradient_norm', 1),
        *((f'level {n}', f'level{n}_scale', 2) for n in range(4)),
    )
}

"""The reproduction report's experiments, as run here: `python tools/report_results.py`."""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.report.results import draw_curves, table, update_records
from demo.markdown import fill_page
from mmfish.cli import run_tool

# What is drawn together: as figures 3 and 4 of the report, and as figures 5 and 6.
FIGURES = {
    'ends': {'report_fishnet55_{}': 'dense end', 'report_fishnet55-conv_{}': 'convolutional end'},
    'sizes': {'report_fishnet55_{}': 'FishNet-55', 'report_fishnet77_{}': 'FishNet-77'},
}


def main() -> None:
    """Read the command line and the logs, write the records, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dirs',
        type=Path,
        default=Path('work_dirs'),
        help='folder with a folder for each run: the name of its config, or that with _seed1, ... '
        '(%(default)s)',
    )
    parser.add_argument(
        '--data', default='fashion_mnist', choices=('fashion_mnist', 'cifar10', 'cifar100')
    )
    parser.add_argument(
        '--records',
        type=Path,
        default=Path('benchmarks/report/records'),
        help='folder of the records, into which those of new runs go (%(default)s)',
    )
    parser.add_argument('--page', type=Path, help='page whose table of this data is replaced')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/report'), help='for pictures (%(default)s)'
    )
    args = parser.parse_args()
    runs = update_records(args.records / f'{args.data}.json', args.work_dirs, args.data)
    for name, labels in FIGURES.items():
        labels = {config.format(args.data): label for config, label in labels.items()}
        if labels.keys() <= {run['config'] for run in runs}:
            draw_curves(runs, labels, args.out / f'{args.data}_{name}.png')
    text = table(runs, args.data)
    if args.page:
        fill_page(args.page, {f'report_{args.data}': text})
    print(text)


if __name__ == '__main__':
    run_tool(main)

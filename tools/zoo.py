"""Try FishNet in the configs that MMDetection ships, and put the tables into docs/zoo.md.

Without arguments one config of each family is tried, with --all the others after them. Outcomes are
kept in a file, so that an interrupted run can be continued; remove the file to start anew. With the
names of configs or families the page is not written. Some families need more packages:
`pip install -r requirements/zoo.txt`.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.zoo import by_family, read_results, run_zoo, zoo_configs, zoo_tables
from demo.markdown import fill_page
from mmfish.cli import run_tool
from mmfish.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Read the command line, try the configs and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', help="paths below MMDetection's configs, or families")
    parser.add_argument('--all', action='store_true', help='every config, after one of each family')
    parser.add_argument('--arch', default='fishnet77', help='of FishNet (fishnet77)')
    parser.add_argument(
        '--limit', type=float, default=600, help='seconds for a config and a column (600)'
    )
    parser.add_argument(
        '--results', type=Path, default=ROOT / 'work_dirs/zoo.jsonl', help='where outcomes are kept'
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/zoo.md', help='the page (docs/zoo.md)'
    )
    args = parser.parse_args()

    configs = list(zoo_configs())
    if args.configs:
        configs = [name for name in configs if name.startswith(tuple(args.configs))]
        if not configs:
            raise UsageError(
                f'no config with a ResNet-like backbone begins with {" or ".join(args.configs)}: '
                "expected paths below MMDetection's configs, such as retinanet or "
                'retinanet/retinanet_r50'
            )
    totals = len(by_family(configs)), len(configs)
    families: dict[str, dict[str, str]] = {}

    def update_page() -> None:
        if not args.configs:
            outcomes = read_results(args.results, args.arch)
            fill_page(args.out, zoo_tables(families, outcomes, totals))

    options = dict(arch=args.arch, limit=args.limit)
    for config, outcome in run_zoo(configs, args.results, one_per_family=True, **options):
        families[config] = outcome
        update_page()
    if args.all:
        for _ in run_zoo(configs, args.results, **options):
            update_page()


if __name__ == '__main__':
    run_tool(main)

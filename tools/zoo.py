"""Try FishNet in the configs that MMDetection ships, and put the tables into docs/zoo.md.

Without arguments one config of each family; with --all every config. Outcomes are kept, so that a
run that was ended goes on where it was; remove the file to start anew. Two processes share
the work with --part 1/2 and --part 2/2. Runs of named configs or families, and parts, do not write
the page: the same command without a part does, in seconds if all is kept.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.zoo import by_family, run_zoo, zoo_configs, zoo_tables
from demo.markdown import fill_page
from mmfish.cli import run_tool
from mmfish.errors import UsageError

ROOT = Path(__file__).resolve().parents[1]


def part(text: str) -> slice:
    """Which configs ``2/3`` stands for: every third, beginning with the second."""
    k, n = map(int, text.split('/'))
    return slice(k - 1, None, n)


def main() -> None:
    """Read the command line, try the configs and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', help="paths below MMDetection's configs, or families")
    parser.add_argument('--all', action='store_true', help='every config, not one of each family')
    parser.add_argument(
        '--part', metavar='K/N', type=part, help='only every Nth config, beginning with the Kth'
    )
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
    if args.part:
        chosen = configs[args.part]
    elif args.all:
        chosen = configs
    else:
        chosen = [names[0] for names in by_family(configs).values()]
    outcomes = run_zoo(chosen, args.results, arch=args.arch, limit=args.limit)
    if not (args.configs or args.part):
        fill_page(args.out, zoo_tables(configs, outcomes))


if __name__ == '__main__':
    run_tool(main)

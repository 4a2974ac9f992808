"""Try FishNet in the configs that MMDetection ships, and write the table to docs/zoo.md.

Without arguments one config of each family; with --all every one. Outcomes are kept, so that a run
that was ended goes on where it was; remove the file to start anew. Runs of named configs or
families do not write the page.
"""

import argparse
from pathlib import Path

import torch

from mmfish.engine.launch import run_tool
from mmfish.errors import UsageError
from mmfish.zoo import by_family, run_zoo, zoo_configs, zoo_page

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Read the command line, try the configs and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', help="paths below MMDetection's configs, or families")
    parser.add_argument('--all', action='store_true', help='every config, not one of each family')
    parser.add_argument('--arch', default='fishnet77', help='of FishNet (fishnet77)')
    parser.add_argument('--limit', type=float, default=600, help='seconds for a config (600)')
    parser.add_argument(
        '--results', type=Path, default=ROOT / 'work_dirs/zoo.jsonl', help='where outcomes are kept'
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/zoo.md', help='the page (docs/zoo.md)'
    )
    args = parser.parse_args()

    # One thread: processes are forked, which torch's threads would not survive.
    torch.set_num_threads(1)
    configs = list(zoo_configs())
    if args.configs:
        configs = [name for name in configs if name.startswith(tuple(args.configs))]
        if not configs:
            raise UsageError(
                f'no config with a ResNet-like backbone begins with {" or ".join(args.configs)}: '
                "expected paths below MMDetection's configs, such as retinanet or "
                'retinanet/retinanet_r50'
            )
    total = len(configs) if args.all else len(by_family(configs))
    outcomes = {}
    for config, outcome in run_zoo(
        configs, args.results, one_per_family=not args.all, arch=args.arch, limit=args.limit
    ):
        outcomes[config] = outcome
        if not args.configs:
            tried = f'{len(outcomes)} of {total} {"configs" if args.all else "families"}'
            args.out.write_text(zoo_page(outcomes, tried, args.arch))


if __name__ == '__main__':
    run_tool(main)

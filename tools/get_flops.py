"""Parameters and FLOPs of models beside the published ones: `python tools/get_flops.py`."""

import argparse

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.complexity import complexity_table
from mmfish.cli import run_tool
from mmfish.models import ARCHS


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'models',
        nargs='*',
        default=list(ARCHS),
        metavar='MODEL',
        help='archs of FishNet, models of MMPretrain, paths of configs (all archs)',
    )
    parser.add_argument(
        '--shape', type=int, nargs='+', default=[224], help='height and width in pixels (224)'
    )
    args = parser.parse_args()
    print(complexity_table(args.models, (args.shape[0], args.shape[-1])))


if __name__ == '__main__':
    run_tool(main)

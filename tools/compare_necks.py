"""FPN on FishNet's raw levels beside FishHeadAdapter and FPN: `python tools/compare_necks.py`.

Trains the shapes demo's detector with each, three seeds, gradient clipping off; on one CPU core
about half an hour. Called again it goes on with the runs that have not finished.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.necks import compare_necks, necks_table
from demo.shapes import make_shapes
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, train, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/necks'))
    parser.add_argument(
        '--iterations', type=int, default=400, help='of each training (%(default)s)'
    )
    args = parser.parse_args()
    make_shapes(args.data_root)
    print(necks_table(compare_necks(args.data_root, args.work_dir, iterations=args.iterations)))


if __name__ == '__main__':
    run_tool(main)

"""The paper's tables, measured beside published: `python tools/paper_tables.py`."""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.paper_tables import write_paper_tables
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, print the tables and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dirs',
        type=Path,
        default=Path('work_dirs'),
        help='folder with a folder for each run, named after its config (%(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/paper_tables'),
        help='folder for paper_tables.md and .csv (%(default)s)',
    )
    args = parser.parse_args()
    print(write_paper_tables(args.work_dirs, args.out))
    print(f'Written to {args.out}/paper_tables.md and .csv')


if __name__ == '__main__':
    run_tool(main)

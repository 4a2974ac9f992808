"""How far exported detectors are from MMDetection's: `python tools/agreement.py`.

Detectors of MMDetection's zoo are built with random weights, exported, and run in both runtimes
beside MMDetection: four minutes of one CPU core.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.agreement import agreement_table
from demo.markdown import fill_page
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--page', type=Path, metavar='FILE.md', help='put the table into docs/export.md'
    )
    args = parser.parse_args()
    table = agreement_table()
    print(table)
    if args.page:
        fill_page(args.page, {'agreement': table})


if __name__ == '__main__':
    run_tool(main)

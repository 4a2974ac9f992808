"""AP of the demo's detector and of its exported files: `python tools/compare_exported.py`.

It takes what `make demo` has trained, or another detector for the same data.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.exported import ap_table, compare_exported
from demo.markdown import fill_page
from demo.shapes import make_shapes
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', nargs='?', default='work_dirs/demo', help='(%(default)s)')
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'))
    parser.add_argument(
        '--page',
        type=Path,
        metavar='FILE.md',
        help='put the table into docs/export.md',
    )
    args = parser.parse_args()
    table = ap_table(compare_exported(args.model, make_shapes(args.data_root)))
    print(table)
    if args.page:
        fill_page(args.page, {'AP': table})


if __name__ == '__main__':
    run_tool(main)

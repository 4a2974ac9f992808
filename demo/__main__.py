"""See FishNet learn to detect and segment: `python -m demo`, about ten minutes on a CPU."""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from demo.demonstration import run_demo
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line and run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-root', type=Path, default=Path('data/shapes'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    args = parser.parse_args()
    run_demo(args.data_root, args.work_dir)


if __name__ == '__main__':
    run_tool(main)

"""Gradient norms against depth of FishNet, ResNet and DenseNet: `python tools/gradient_flow.py`."""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.gradient_flow import draw_gradient_flow, flow_table, gradient_flow
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line, train for some steps, print and draw the norms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--steps', type=int, default=20, help='of SGD (%(default)s)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/gradient_flow.png'), help='(%(default)s)'
    )
    args = parser.parse_args()
    norms = gradient_flow(args.steps)
    print(flow_table(norms))
    print(f'\nDrawn to {draw_gradient_flow(norms, args.steps, args.out)}')


if __name__ == '__main__':
    run_tool(main)

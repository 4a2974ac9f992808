"""Write the shapes data set: a small COCO-layout instance segmentation problem, drawn on the spot.

Example: ``python tools/make_shapes.py data/shapes``
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from demo.shapes import make_shapes
from mmfish.cli import run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('root', nargs='?', type=Path, default=Path('data/shapes'))
    parser.add_argument('--train', type=int, default=1000, help='training images (%(default)s)')
    parser.add_argument('--val', type=int, default=200, help='validation images (%(default)s)')
    parser.add_argument('--size', type=int, default=128, help='side in pixels (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the drawing (%(default)s)')
    return parser.parse_args()


def main() -> None:
    """Make the data set and say where it is."""
    args = parse_args()
    root = make_shapes(args.root, args.train, args.val, args.size, args.seed)
    print(f'shapes: {args.train} training and {args.val} validation images in {root}')


if __name__ == '__main__':
    run_tool(main)

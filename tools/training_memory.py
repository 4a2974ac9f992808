"""Activation memory of FishNet-150 and DenseNet-161: `python tools/training_memory.py`."""

import argparse

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.memory import memory_table
from mmfish.cli import run_tool


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batch-size', type=int, default=32, help='images (%(default)s)')
    parser.add_argument('--size', type=int, default=224, help='in pixels (%(default)s)')
    args = parser.parse_args()
    print(memory_table(args.batch_size, args.size))


if __name__ == '__main__':
    run_tool(main)

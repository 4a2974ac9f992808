"""Build the model of every config and train it for one step on the CPU, without data or downloads.

Example: ``python tools/check_configs.py``, or with the paths of some configs.
"""

import argparse
from pathlib import Path

import mmfish.notices  # noqa: F401  first: without it the imports below print notices
from benchmarks.check_configs import check_configs, experiments
from mmfish.cli import run_tool
from mmfish.config.paths import config_folder


def main() -> None:
    """Read the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', type=Path, help='by default all of mmfish')
    parser.add_argument('--size', type=int, default=128, help="of detectors' images (%(default)s)")
    args = parser.parse_args()
    check_configs(args.configs or experiments(config_folder().resolve()), args.size)


if __name__ == '__main__':
    run_tool(main)

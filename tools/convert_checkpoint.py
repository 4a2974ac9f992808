"""Convert weights of the authors' release or of pytorchcv to our names, or to the released ones.

Example: ``python tools/convert_checkpoint.py pytorchcv://fishnet150 fishnet150.pth``
"""

import argparse

from mmfish.checkpoints import convert_checkpoint
from mmfish.cli import run_tool


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'source', help='file or URL, pytorchcv://fishnet150 or official://fishnet99'
    )
    parser.add_argument('target', help='file to write')
    parser.add_argument('--backbone-only', action='store_true', help='without the classifier')
    parser.add_argument(
        '--released-names', action='store_true', help="back to the names of the authors' release"
    )
    return parser.parse_args()


def main() -> None:
    """Convert and say what it was."""
    args = parse_args()
    meta = convert_checkpoint(
        args.source,
        args.target,
        backbone_only=args.backbone_only,
        released_names=args.released_names,
    )
    print(f'{args.target}: {meta["arch"]} from {meta["source"]} (sha256 {meta["sha256"]})')


if __name__ == '__main__':
    run_tool(main)

"""Evaluate a checkpoint: `python tools/test.py CONFIG CHECKPOINT`, or `tools/dist_test.sh`."""

import argparse

from mmfish.cli import add_run_arguments, run_tool
from mmfish.engine.run import load_config, run_test


def main() -> None:
    """Read the command line and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config, or mmdet::PATH for one of its own')
    parser.add_argument('checkpoint', help='path of the checkpoint')
    add_run_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions to a folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds for --show (2)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--fuse-conv-bn', action='store_true', help='fold normalisation into the convolutions'
    )
    args = parser.parse_args()
    cfg = load_config(
        args.config,
        backbone=args.backbone,
        work_dir=args.work_dir,
        data_root=args.data_root,
        cfg_options=args.cfg_options,
        launcher=args.launcher,
    )
    run_test(
        cfg,
        args.checkpoint,
        out=args.out,
        show=args.show,
        show_dir=args.show_dir,
        wait_time=args.wait_time,
        tta=args.tta,
        fuse_conv_bn=args.fuse_conv_bn,
        channels_last=args.channels_last,
    )


if __name__ == '__main__':
    run_tool(main)

"""Train a model: `python tools/train.py CONFIG`, or on several GPUs `tools/dist_train.sh`."""

import argparse

from mmfish.cli import add_run_arguments, run_tool
from mmfish.engine.run import load_config, run_train


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config, or mmdet::PATH for one of its own')
    add_run_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate to the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, by default the latest one of the work directory',
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
    run_train(
        cfg,
        amp=args.amp,
        auto_scale_lr=args.auto_scale_lr,
        channels_last=args.channels_last,
        resume=args.resume,
    )


if __name__ == '__main__':
    run_tool(main)

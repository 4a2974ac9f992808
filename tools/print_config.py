"""Print a complete config, and what its options changed.

`python tools/print_config.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --backbone fishnet150`
"""

import argparse

from mmfish.configs import read_config
from mmfish.engine.launch import add_config_arguments, load_config, run_tool
from mmfish.plugin import config_diff


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path of the config, or mmdet::PATH for one of its own')
    add_config_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, backbone=args.backbone, cfg_options=args.cfg_options)
    # What a run would add is no part of the config.
    del cfg.launcher, cfg.work_dir
    print(cfg.pretty_text)
    print(config_diff(read_config(args.config), cfg))


if __name__ == '__main__':
    run_tool(main)

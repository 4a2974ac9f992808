"""Print a complete config, and what its options changed.

`python tools/print_config.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --backbone fishnet150`
"""

import argparse

from mmfish.cli import add_config_arguments, run_tool
from mmfish.config.paths import read_config
from mmfish.config.plug_in import config_diff, plug_in


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='path of the config, or mmdet::PATH for one of its own')
    add_config_arguments(parser)
    args = parser.parse_args()
    before = read_config(args.config)
    after = plug_in(before, args.backbone) if args.backbone else read_config(args.config)
    if args.cfg_options:
        after.merge_from_dict(args.cfg_options)
    texts = before.pretty_text, after.pretty_text  # to format them takes seconds
    print(texts[1])
    print(config_diff(*texts, args.config))


if __name__ == '__main__':
    run_tool(main)

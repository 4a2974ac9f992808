"""What the command-line tools share: their arguments, quiet imports, and how an error ends them.

The tools import this module first.
"""

import argparse
import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from mmengine.config import DictAction

from mmfish.errors import UsageError


def import_without_notices(
    modules: Iterable[str] = ('mmdet.datasets', 'mmdet.evaluation', 'mmpretrain.datasets'),
) -> None:
    """Import modules without their notices that ``onedl`` or ``faster_coco_eval`` is missing.

    MMDetection and MMPretrain print them in every process, and mmfish uses neither package. All
    else that is printed or warned of meanwhile is passed on.

    Args:
        modules: their names. Defaults to those that print the notices.
    """
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
        for module in modules:
            importlib.import_module(module)
    for line in printed.getvalue().splitlines():
        if not line.startswith('Could not import OneDL'):
            print(line)


import_without_notices()


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing share: MMDetection's own and ours.

    Args:
        parser: changed in place.
    """
    parser.add_argument('--work-dir', help='for logs and checkpoints (work_dirs/<config name>)')
    parser.add_argument('--data-root', help="folder of the data set, instead of the config's own")
    add_config_arguments(parser)
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep weights and features in NHWC memory format: faster convolutions',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it, torchrun does not.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that change a config: ``--backbone`` and ``--cfg-options``.

    Args:
        parser: changed in place.
    """
    parser.add_argument(
        '--backbone',
        metavar='ARCH',
        help="put FishNet in the place of the config's ResNet, e.g. fishnet150 (fixed norm layers: "
        '--cfg-options model.backbone.norm_cfg.type=mmfish.FrozenBN)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=2 key="[a,b]"',
    )


def run_tool(main: Callable[[], object]) -> None:
    """Run a command-line tool. An error that the user can correct is printed as one sentence.

    Args:
        main: of the tool.
    """
    try:
        main()
    except UsageError as error:
        sys.exit(f'{Path(sys.argv[0]).name}: {_sentence(error)}')


def _sentence(error: UsageError) -> str:
    # DataLoader turns an error in a worker process into one whose message is the traceback; the
    # last line of that is the name of the class and our sentence.
    last_line = str(error).strip().rpartition('\n')[-1]
    return re.sub(rf'^[\w.]*{type(error).__name__}: ', '', last_line)

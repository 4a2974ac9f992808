"""Imports the packages below without their notices that an optional package is missing.

The command and the tools import this module before the rest of mmfish.
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterable

import mmfish.whole_stack  # noqa: F401


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

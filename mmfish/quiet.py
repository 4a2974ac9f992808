"""Imported first by the tools: MMDetection and MMPretrain without their messages about OneDL.

When these modules are imported, they print or warn that the packages ``onedl`` and
``faster_coco_eval`` are not installed, in every process. mmfish uses neither.
"""

import contextlib
import importlib
import io
import warnings


def import_without_notices() -> None:
    """Import the modules that print such notices, and drop these; everything else is passed on."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
        for module in ('mmdet.datasets', 'mmdet.evaluation', 'mmpretrain.datasets'):
            importlib.import_module(module)
    for line in printed.getvalue().splitlines():
        if not line.startswith('Could not import OneDL'):
            print(line)


import_without_notices()

"""The configs that come with mmfish, found wherever it is installed."""

from __future__ import annotations

import difflib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def config_path(name: str) -> str:
    """The absolute path of one of mmfish's own configs.

    MMEngine's ``package::path`` form knows OpenMMLab's packages only. This works in everybody's
    config, under every tool, in one line and without importing mmfish first::

        _base_ = __import__('mmfish').config_path('mask_rcnn_fishnet150_fpn_coco.py')

    Args:
        name: The config's path inside mmfish's ``configs`` folder.

    Raises:
        FileNotFoundError: There is no such config; the message lists those with similar names.
    """
    folder = config_folder()
    path = folder / name
    if path.is_file():
        return str(path.resolve())
    known = sorted(file.relative_to(folder).as_posix() for file in folder.rglob('*.py'))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise FileNotFoundError(
        f'mmfish has no config {name!r} in {folder}: '
        + (f'did you mean {" or ".join(close)}?' if close else f'there are {", ".join(known)}.')
    )


def config_folder() -> Path:
    """The ``configs`` of an installed mmfish, or those of a checkout that was never installed."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'

"""Configs by name: those that come with mmfish and those of the OpenMMLab packages."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmfish.errors import ConfigError
from mmfish.stack import folder

PACKAGE = Path(__file__).resolve().parents[1]


def config_path(name: str) -> str:
    """The absolute path of one of mmfish's own configs.

    MMEngine's ``package::path`` form knows OpenMMLab's packages only. This works in everybody's
    config, under every tool, in one line and without importing mmfish first::

        _base_ = __import__('mmfish').config_path('mask_rcnn_fishnet150_fpn_coco.py')

    Args:
        name: the config's path inside mmfish's ``configs`` folder.

    Raises:
        FileNotFoundError: there is no such config; the message lists those with similar names.
    """
    configs = config_folder()
    path = configs / name
    if path.is_file():
        return str(path.resolve())
    known = sorted(file.relative_to(configs).as_posix() for file in configs.rglob('*.py'))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise FileNotFoundError(
        f'mmfish has no config {name!r} in {configs}: '
        + (f'did you mean {" or ".join(close)}?' if close else f'there are {", ".join(known)}.')
    )


def read_config(config: str | os.PathLike) -> Config:
    """Read a config from a file or from an installed package.

    Args:
        config: a path, or ``package::path`` for one below the ``configs`` of a package, such as
            ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``.

    Raises:
        ConfigError: the package or the file is not there, or the file is no config.
    """
    if not isinstance(config, (str, os.PathLike)):
        raise ConfigError(
            f'expected a Config of MMEngine or the path of one, got a {type(config).__name__}'
        )
    package, separator, path = os.fspath(config).rpartition('::')
    if separator:
        location = folder(package)
        if location is None:
            raise ConfigError(f'{config} names a package {package} that is not installed')
        path = location / '.mim' / 'configs' / path
    if not os.path.isfile(path):
        raise ConfigError(
            f'there is no config {path}: expected the path of a file, or package::path, such as '
            'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
        )
    try:
        return Config.fromfile(path)
    except (OSError, SyntaxError) as error:
        raise ConfigError(
            f'{path} cannot be read as a config: {error}; expected is the path of a .py, .json or '
            '.yml file'
        ) from error


def config_folder() -> Path:
    """The ``configs`` of an installed mmfish, or those of a checkout that was never installed."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def dicts(part: Any) -> Iterator[dict]:
    """Every dict in a config or a part of one, outermost first."""
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, list | tuple):
        for item in part:
            yield from dicts(item)

"""Whether configs work: each model predicts and trains for one step, without data or downloads."""

import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MMLogger

from mmfish.engine.trial import try_model
from mmfish.errors import UsageError


def experiments(folder: Path) -> list[Path]:
    """The configs in a folder that are experiments: all but those in ``_base_`` folders."""
    files = folder.rglob('*.py')
    return sorted(file for file in files if '_base_' not in file.relative_to(folder).parts)


def check_configs(paths: Sequence[Path], size: int = 128) -> None:
    """Check configs one after the other, and print a line about each.

    Args:
        paths: of the configs.
        size: as for `try_model`.

    Raises:
        UsageError: at least one failed; says how many.
    """
    # Of every parameter MMEngine logs how it was initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    failed = 0
    names = [os.path.relpath(path) for path in paths]
    width = max(map(len, names))
    for name, path in zip(names, paths, strict=True):
        try:
            parameters, loss = try_model(Config.fromfile(path), size)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            print(f'{name:<{width}}  FAILED: {type(error).__name__}: {error}', flush=True)
        else:
            print(f'{name:<{width}}  {parameters:>11,} parameters  loss {loss:.5g}', flush=True)
    if failed:
        raise UsageError(f'{failed} of {len(paths)} configs failed')

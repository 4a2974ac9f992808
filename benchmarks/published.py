"""The published numbers, as data."""

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def load_published() -> dict[str, Any]:
    """What ``published.json`` holds: ``tables`` by name, and ``complexity``.

    A table has a ``caption``, a ``source``, ``columns`` and ``rows``. Of a column, ``unit`` says
    how a measured value becomes one of the table: ``AP`` (a metric between 0 and 1, times 100),
    ``accuracy`` (a metric in percent), ``error`` (100 less that), ``change of error`` (of the
    first of the row's ``runs`` against the second); ``seconds`` (of an epoch of training); or what
    is computed from the row's ``model``: ``parameters`` (in millions), ``parameters and
    statistics`` (BatchNorm's, as Keras counts), ``memory`` (in MB), ``memory ratio`` (to that of
    the model in ``relative_to``). ``metric`` is the name that MMEngine logs, and ``run`` tells
    which of the row's ``runs`` it belongs to (the first unless given); a row's ``metrics``
    are other names in the place of some. ``runs`` are names of configs, and so of folders under
    ``work_dirs``; ``published`` has a number for each column.
    """
    return json.loads(Path(__file__).with_suffix('.json').read_text(encoding='utf-8'))

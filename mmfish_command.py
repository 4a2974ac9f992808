"""Starts the command ``mmfish``, which is ``mmfish/cli.py``, without importing mmfish first.

``import mmfish`` imports torch, which takes seconds, and raises where the installed packages cannot
carry mmfish. Therefore this module lies beside the package: help and wrong usage are answered at
once, and ``mmfish check`` can say what is wrong.
"""

import runpy
from importlib.util import find_spec
from pathlib import Path


def main(verb: str | None = None) -> None:
    """Run the command with the arguments of this process.

    Args:
        verb: of the command, for a tool that does nothing else. Defaults to the first argument.
    """
    cli = Path(find_spec('mmfish').origin).with_name('cli.py')
    runpy.run_path(str(cli))['main'](verb)

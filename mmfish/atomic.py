"""Files that are there as a whole, or not at all."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# The name of a file that is still being written ends with this.
PART = '.part'


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for writing under another name; at the end flush it to the disk and rename it.

    Whenever the process is killed, there is either the complete new file or the old one. Several
    processes may write the same file at once. A link of that name is replaced, not followed.

    Args:
        path: of the file; folders that do not exist are made.

    Yields:
        The opened file. If the block raises, the old one stays.

    Raises:
        OSError: the file could not be written. The old one is still there.
    """
    path = Path(path)
    # No other thread on any machine that shares the folder writes under this name.
    part = path.with_name(f'.{socket.gethostname()}-{threading.get_native_id()}{PART}')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:  # Ctrl-C, too
        part.unlink(missing_ok=True)
        raise
    # The new name has to survive a loss of power, too. Windows cannot open a folder, and some
    # network file systems cannot flush one.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a whole file as `atomic_file` does.

    Args:
        path: of the file; folders that do not exist are made.
        content: of the file.

    Raises:
        OSError: the file could not be written. The old one is still there.
    """
    with atomic_file(path) as file:
        file.write(content)

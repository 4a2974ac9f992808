import errno
import os

import pytest

from mmfish.atomic import write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / 'file'
    write_atomically(file, b'old')

    def no_room(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', no_room)
    with pytest.raises(OSError, match='No space left'):
        write_atomically(file, b'newer')
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b'old', [file])


def test_a_file_is_written_where_folders_cannot_be_opened(tmp_path, monkeypatch):
    def as_on_windows(path, flags):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, 'open', as_on_windows)
    write_atomically(tmp_path / 'file', b'content')
    assert (tmp_path / 'file').read_bytes() == b'content'

"""Files with weights: read without running anything in them, recognised by their keys."""

import fcntl
import io
import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.fileio
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmfish.checkpoints.convert import from_official, from_pytorchcv
from mmfish.errors import CheckpointError
from mmfish.models import FishNet

PYTORCHCV_SCHEME = 'pytorchcv://'


def load_backbone(backbone: FishNet, checkpoint: str) -> None:
    """Load a backbone's weights, all of them, from whatever file they are in.

    Args:
        backbone: where they go.
        checkpoint: as for `load_backbone_state`.

    Raises:
        CheckpointError: the file cannot be read, holds no FishNet or one of another architecture;
            then nothing was loaded.
    """
    state_dict = load_backbone_state(checkpoint)
    own = backbone.state_dict()
    expected = {key: tensor.shape for key, tensor in own.items()}
    found = {key: tensor.shape for key, tensor in state_dict.items() if backbone.has_use_for(key)}
    wrong = min((key for key, _ in expected.items() ^ found.items()), default=None)
    if wrong:
        shapes = (
            tuple(shapes[wrong]) if wrong in shapes else 'none' for shapes in (expected, found)
        )
        raise CheckpointError(
            f'{checkpoint} does not fit arch {backbone.arch!r}: for {wrong} this needs a tensor of '
            'shape {}, and the file has {}'.format(*shapes)
        )
    backbone.load_state_dict(state_dict)


def load_backbone_state(checkpoint: str) -> dict[str, Tensor]:
    """Read the weights of a FishNet backbone from whatever file they are in.

    Args:
        checkpoint: path or URL of a released file, a pytorchcv file, a classifier, a detector or a
            bare backbone of MMEngine's, or ``pytorchcv://fishnet150``.

    Returns:
        The backbone's state dict.

    Raises:
        CheckpointError: the file cannot be read, or holds no FishNet.
    """
    state_dict, _ = in_our_names(read_state_dict(checkpoint))
    backbone = {
        key.removeprefix('backbone.'): value
        for key, value in state_dict.items()
        if key.startswith('backbone.')
    }
    backbone = backbone or state_dict
    if 'bridge.score.0.weight' not in backbone:
        raise CheckpointError(
            f'{checkpoint} holds no FishNet: expected a released file, a pytorchcv file, a '
            f'classifier or detector with FishNet, or a bare backbone, and found keys such as '
            f'{next(iter(state_dict), "none at all")}'
        )
    return backbone


def in_our_names(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Recognise by its keys whose a state dict is, and rename it if it is somebody else's.

    Args:
        state_dict: with or without the ``module.`` of torch's DataParallel.

    Returns:
        The same tensors under our names, and whose they were: 'official', 'pytorchcv' or 'mmfish'.

    Raises:
        CheckpointError: as in `from_official`.
    """
    state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    if any(key.startswith('fish.') for key in state_dict):
        return from_official(state_dict), 'official'
    if any(key.startswith('features.hg.') for key in state_dict):
        return from_pytorchcv(state_dict), 'pytorchcv'
    return state_dict, 'mmfish'


def read_state_dict(checkpoint: str) -> Mapping[str, Tensor]:
    """Read a state dict from a file, with nothing but tensors and plain data allowed in it.

    Args:
        checkpoint: path, URL of any of MMEngine's file backends, or ``pytorchcv://<name>``.

    Returns:
        The file's ``state_dict`` entry if it has one, or else all of it.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint.
    """
    file = io.BytesIO(read_bytes(checkpoint))
    try:
        with _plain_data_allowed():
            content = torch.load(file, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{checkpoint} was not loaded because it is no checkpoint, or holds more than tensors '
            'and plain data, which could run code: expected what torch.save makes of a state dict'
        ) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(f'{checkpoint} cannot be read as a checkpoint: {error}') from error
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not state_dict or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise CheckpointError(
            f'{checkpoint} is no checkpoint: expected a dict of tensors, or one under "state_dict"'
        )
    return state_dict


def read_bytes(checkpoint: str) -> bytes:
    """Read the file behind a path or URL; downloads are kept where torch and pytorchcv keep them.

    Args:
        checkpoint: as for `read_state_dict`.

    Raises:
        CheckpointError: there is no such file, or it cannot be had.
    """
    try:
        path = checkpoint
        if checkpoint.startswith(PYTORCHCV_SCHEME):
            path = _pytorchcv_file(checkpoint)
        elif checkpoint.startswith(('http://', 'https://')):
            path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(checkpoint).path).name)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(checkpoint, str(path))
        return mmengine.fileio.get(path)
    except OSError as error:
        raise CheckpointError(f'{checkpoint} cannot be read as a checkpoint: {error}') from error


@CheckpointLoader.register_scheme(prefixes=PYTORCHCV_SCHEME)
def load_from_pytorchcv(filename: str, map_location: Any = None) -> dict[str, dict[str, Tensor]]:
    """MMEngine's loader for ``pytorchcv://<name>``: a classifier's checkpoint.

    pytorchcv downloads the file into its own store and checks its hash.
    """
    state_dict = from_pytorchcv(read_state_dict(filename))
    if map_location is not None:
        state_dict = {key: value.to(map_location) for key, value in state_dict.items()}
    return dict(state_dict=state_dict)


def _pytorchcv_file(url: str) -> str:
    try:
        from pytorchcv.models.common import model_store
    except ImportError as error:
        raise CheckpointError(
            f'{url} needs the package pytorchcv, which knows where the weights are: '
            '`pip install pytorchcv`, or give the path of a file'
        ) from error
    name = url.removeprefix(PYTORCHCV_SCHEME)
    store = Path('~/.torch/models').expanduser()
    store.mkdir(parents=True, exist_ok=True)
    try:
        # Every rank of a run asks for the file, and pytorchcv unpacks it in place.
        with open(store / 'mmfish.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return model_store.get_model_file(name)
    except Exception as error:  # whatever its downloader, hash check or table may raise
        raise CheckpointError(
            f'pytorchcv could not provide the weights of {name} ({type(error).__name__}: {error}): '
            'check the name and the network, or give the path of a file'
        ) from error


def _plain_data_allowed() -> AbstractContextManager:
    # What MMEngine writes beside the weights: the history of the logged scalars.
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    dtypes = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.uint32)}
    allowed = [HistoryBuffer, _statistic, multiarray._reconstruct, multiarray.scalar]
    allowed += [np.ndarray, np.dtype, *dtypes]
    if not hasattr(torch.serialization, 'safe_globals'):  # torch 2.4
        torch.serialization.add_safe_globals(allowed)
        return nullcontext()
    return torch.serialization.safe_globals(allowed)


def _statistic(owner: type, name: str) -> Any:
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner}, {name!r})')
    return getattr(owner, name)


# A HistoryBuffer names its methods through getattr, with which a file could get at anything. torch
# goes by the name: this takes getattr's place while a file is read.
_statistic.__module__, _statistic.__name__, _statistic.__qualname__ = (
    'builtins',
    'getattr',
    'getattr',
)

"""Files with weights: read without running anything in them, recognised by their keys."""

import codecs
import copy
import fcntl
import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.fileio
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmfish.checkpoints.key_maps import check_tensors, from_official, from_pytorchcv
from mmfish.errors import CheckpointError
from mmfish.models import FishNet

PYTORCHCV_SCHEME = 'pytorchcv://'


def load_backbone(backbone: FishNet, checkpoint: str) -> None:
    """Load a backbone's weights, all of them, from whatever file they are in.

    Args:
        backbone: where they go.
        checkpoint: as for `load_backbone_state`.

    Raises:
        CheckpointError: the file cannot be read, holds no FishNet, one of another architecture or
            numbers that are none; then nothing was loaded.
    """
    state_dict = load_backbone_state(checkpoint)
    check_fit(backbone, state_dict, checkpoint, f'arch {backbone.arch!r}')
    backbone.load_state_dict(state_dict)


def check_fit(
    model: nn.Module, state_dict: Mapping[str, Tensor], source: str, target: str = 'the model'
) -> None:
    """See whether weights fit a model, all of them, without loading any.

    Args:
        model: where they would go.
        state_dict: the weights, under the model's names.
        source: what holds them, for the message.
        target: what the model is, for the message.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape, or has NaN or infinity
            in it; names the tensor.
    """
    check_tensors(state_dict, source)
    # The model itself knows which keys of older versions and of parts left out it takes: ask a copy
    # whose tensors have shapes only.
    shapes: dict[int, Tensor] = {
        id(t): nn.Parameter(t.to('meta'), t.requires_grad) for t in model.parameters()
    }
    shapes.update({id(t): t.to('meta') for t in model.buffers()})
    skeleton = copy.deepcopy(model, shapes)
    try:
        missing, unexpected = skeleton.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:
        # The first line is a heading, then comes one for each tensor.
        first = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(
            f'{source} does not fit {target} ({first[0].strip()}): give the config and the weights '
            'of the same model'
        ) from error
    # Whether batches were counted makes no difference to any result.
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    for problem, keys in (('lacks', missing), ('has, and this does not know,', unexpected)):
        if keys:
            more = f' ({len(keys)} such keys)' if len(keys) > 1 else ''
            raise CheckpointError(
                f'{source} does not fit {target}: it {problem} {min(keys)}{more}: give the config '
                'and the weights of the same model'
            )
    check_numbers(state_dict, source)


def check_numbers(state_dict: Mapping[str, Tensor], source: str) -> None:
    """See whether every weight is an ordinary number.

    Args:
        state_dict: the weights.
        source: what holds them, for the message.

    Raises:
        CheckpointError: a tensor has NaN or infinity in it, or no numbers; names the tensor.
    """
    for key, tensor in state_dict.items():
        if tensor.is_meta or tensor.is_quantized or tensor.layout != torch.strided:
            raise CheckpointError(
                f'{source} has no plain numbers for {key}: expected a dense tensor'
            )
        if tensor.is_complex() or not tensor.isfinite().all():
            raise CheckpointError(
                f'{source} has NaN, infinite or complex numbers in {key}: take a checkpoint from '
                'before the training went wrong'
            )


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
    check_tensors(state_dict, 'this checkpoint')
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
    return state_dict_in(read_content(checkpoint), checkpoint)


def state_dict_in(content: Any, source: str) -> Mapping[str, Tensor]:
    """Find the state dict in what a file holds.

    Args:
        content: of the file.
        source: its name, for the message.

    Raises:
        CheckpointError: there is none.
    """
    state_dict = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(
            f'{source} is no checkpoint: expected a dict of tensors, or one under "state_dict"'
        )
    check_tensors(state_dict, source)
    return state_dict


def read_content(checkpoint: str, map_location: Any = 'cpu') -> Any:
    """Read all that is in a file, with nothing but tensors and plain data allowed in it.

    Args:
        checkpoint: as for `read_state_dict`.
        map_location: as of `torch.load`.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint.
    """
    file = io.BytesIO(read_bytes(checkpoint))
    try:
        with _plain_data_allowed():
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{checkpoint} was not loaded because it is no checkpoint, or holds more than tensors '
            'and plain data, which could run code: expected what torch.save makes of a state dict'
        ) from error
    except Exception as error:  # whatever a damaged or a made-up file leads the reader to
        reason = str(error).strip().partition('\n')[0] if isinstance(error, RuntimeError) else ''
        raise CheckpointError(
            f'{checkpoint} cannot be read as a checkpoint: it is damaged or something else '
            f'({reason or type(error).__name__}); expected what torch.save makes of a state dict'
        ) from error


@contextmanager
def plain_data_only() -> Iterator[None]:
    """While this lasts, MMEngine too takes nothing but tensors and plain data from a checkpoint.

    By itself it runs the code in a file that cannot be read otherwise.
    """
    before = CheckpointLoader._schemes.copy()
    CheckpointLoader.register_scheme(['', 'http://', 'https://'], load_from_plain_data, force=True)
    try:
        yield
    finally:
        CheckpointLoader._schemes = before


def load_from_plain_data(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader for files and URLs while `plain_data_only` lasts.

    Raises:
        CheckpointError: the file cannot be read, or is no checkpoint.
    """
    content = read_content(filename, map_location)
    state_dict_in(content, filename)
    return content


def read_bytes(checkpoint: str) -> bytes:
    """Read the file behind a path or URL; downloads are kept where torch and pytorchcv keep them.

    Args:
        checkpoint: as for `read_state_dict`.

    Raises:
        CheckpointError: there is no such file, or it cannot be had.
    """
    if not isinstance(checkpoint, str):
        raise CheckpointError(
            f'expected the path or URL of a file with weights, got {checkpoint!r}'
        )
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
    except CheckpointError:
        raise
    except Exception as error:  # of whichever file system, connection or storage it is
        raise CheckpointError(
            f'{checkpoint} cannot be read as a checkpoint ({error}): check the name and, of a URL, '
            'the network'
        ) from error


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
    dtypes = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.uint32)}
    allowed = [HistoryBuffer, _statistic, np.ndarray, np.dtype, *dtypes]
    # How NumPy pickles arrays and numbers, whose module has another name before NumPy 2.
    for makes in (np.empty(0).__reduce__()[0], np.float64().__reduce__()[0]):
        allowed += [_alias(makes, f'numpy.{core}.multiarray') for core in ('core', '_core')]
    if not hasattr(torch.serialization, 'safe_globals'):  # torch 2.4
        # How pickle writes the bytes of an array, which later versions allow by themselves.
        torch.serialization.add_safe_globals([*allowed, codecs.encode])
        return nullcontext()
    return torch.serialization.safe_globals(allowed)


def _alias(function: Callable, module: str) -> Callable:
    """The function, to be found in files under the name that it has in a module."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, call.__name__, call.__qualname__ = module, *[function.__name__] * 2
    return call


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

"""Files with weights: read without executing anything in them, recognised by their keys.

The argument ``source`` of the functions below says what holds the weights, for error messages.
"""

import codecs
import copy
import functools
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from filelock import FileLock
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_http, load_from_local
from torch import Tensor, nn

from mmfish.checkpoints.key_maps import our_name, their_name, whose_names
from mmfish.errors import CheckpointError
from mmfish.models import FishNet
from mmfish.registry import WEIGHT_INITIALIZERS

HTTP = ('http://', 'https://')
PYTORCHCV = 'pytorchcv://'
OFFICIAL = 'official://'
# The files that the README of the authors' release (https://github.com/kevin-ssy/FishNet) links. Of
# FishNet-201 there is only the one of 200 epochs.
RELEASED_FILES = dict(
    fishnet99='https://www.dropbox.com/s/hvojbdsad5ue7yb/fishnet99_ckpt.tar',
    fishnet150='https://www.dropbox.com/s/hjadcef18ln3o2v/fishnet150_ckpt.tar',
    fishnet150_200e='https://www.dropbox.com/s/ajy9p6f97y45f1r/fishnet150_ckpt_welltrained.tar',
    fishnet201='https://www.dropbox.com/s/kvz2dmxe3fzn10m/fishnet201_ckpt_welltrain.tar',
)


@WEIGHT_INITIALIZERS.register_module()
class PretrainedFishNet:
    """Initialise a FishNet with the weights in a file, all of them or none.

    This is what ``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a FishNet means.

    Args:
        checkpoint: as for `load_backbone_state`.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: FishNet) -> None:
        """Load the weights.

        Raises:
            CheckpointError: as in `load_backbone`.
        """
        load_backbone(module, self.checkpoint)


def load_backbone(backbone: FishNet, checkpoint: str) -> None:
    """Load all of a backbone's weights, from whatever file they are in.

    Args:
        backbone: where they go.
        checkpoint: as for `load_backbone_state`.

    Raises:
        CheckpointError: the file cannot be read, holds no FishNet or one of another architecture,
            or has NaN or Inf in it; then nothing was loaded.
    """
    state_dict = load_backbone_state(checkpoint)
    check_fit(backbone, state_dict, checkpoint, f'arch {backbone.arch!r}')
    check_numbers(state_dict, checkpoint)
    backbone.load_state_dict(state_dict)


def load_backbone_state(checkpoint: str) -> dict[str, Tensor]:
    """Read the weights of a FishNet backbone from whatever file they are in.

    Args:
        checkpoint: path or URL of a released file, a file of pytorchcv's, or a classifier, a
            detector or a bare backbone of MMEngine's; or ``pytorchcv://fishnet150``, or
            ``official://`` and a name in `RELEASED_FILES`.

    Returns:
        The backbone's state dict.

    Raises:
        CheckpointError: the file cannot be read, or holds no FishNet.
    """
    return backbone_in(read_state_dict(checkpoint), checkpoint)


def backbone_in(state_dict: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The backbone's weights in a state dict, whoever named them.

    Raises:
        CheckpointError: there is no FishNet in it.
    """
    ours = under_our_names(state_dict, source)
    prefix = 'backbone.'
    backbone = {k.removeprefix(prefix): t for k, t in ours.items() if k.startswith(prefix)} or ours
    if 'bridge.score.0.weight' not in backbone:
        raise CheckpointError(
            f"{source} holds no FishNet: expected a released file, a file of pytorchcv's, a "
            'classifier or detector with FishNet, or a bare backbone, and found keys such as '
            f'{next(iter(state_dict), "none at all")}'
        )
    return backbone


def under_our_names(
    state_dict: Mapping[str, Tensor], source: str, names: str | None = None
) -> dict[str, Tensor]:
    """Rename a state dict's tensors as we name them; keys that nobody knows stay.

    Args:
        state_dict: with or without the ``module.`` of torch's DataParallel.
        source: what holds it.
        names: that it has: 'official', 'pytorchcv' or 'mmfish'. Defaults to what its keys look
            like.

    Raises:
        CheckpointError: it holds something else than tensors, or two under the same name.
    """
    check_tensors(state_dict, source)
    plain = without_module(state_dict)
    names = names or whose_names(plain)
    renamed = {our_name(key, names): tensor for key, tensor in plain.items()}
    if len(renamed) < len(state_dict):
        raise CheckpointError(
            f'{source} has two tensors for the same place in the network: expected the state dict '
            'of one network'
        )
    return renamed


def without_module(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the ``module.`` off that torch's DataParallel puts before each key."""
    return {key.removeprefix('module.'): tensor for key, tensor in state_dict.items()}


def check_fit(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str,
    target: str = 'the model',
    names: str = 'mmfish',
) -> None:
    """Check that all of a model's weights are there and fit, without loading any.

    Args:
        model: where they would go.
        state_dict: the weights, under the model's names.
        source: what holds them.
        target: what the model is, for the message.
        names: whose names the message gives to tensors: 'official', 'pytorchcv' or 'mmfish'.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; the message names it.
    """
    # Only the model knows which keys it accepts, of older versions or of parts that it leaves out.
    # So load the weights into a copy of it on the meta device, whose tensors are shapes alone.
    shapes: dict[int, Tensor] = {
        id(t): nn.Parameter(t.to('meta'), t.requires_grad) for t in model.parameters()
    }
    shapes.update({id(t): t.to('meta') for t in model.buffers()})
    skeleton = copy.deepcopy(model, shapes)
    problem = None
    try:
        missing, unexpected = skeleton.load_state_dict(state_dict, strict=False, assign=True)
    except RuntimeError as error:
        # The first line is a heading, then comes one for each tensor.
        problem = (str(error).splitlines()[1:2] or [str(error)])[0].strip()
    else:
        # No result depends on how many batches BatchNorm has seen, and old files do not say.
        missing = [key for key in missing if not key.endswith('num_batches_tracked')]
        for what, keys in (('has the unknown', unexpected), ('lacks', missing)):
            if keys and not problem:
                more = f' ({len(keys)} such keys)' if len(keys) > 1 else ''
                problem = f'it {what} {their_name(min(keys), names)}{more}'
    if problem:
        raise CheckpointError(
            f'{source} does not fit {target}: {problem}; expected are all weights of that model, '
            'and no others'
        )


def check_numbers(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Check that every weight is an ordinary number.

    Raises:
        CheckpointError: a tensor has NaN or Inf in it, or is not a dense tensor of real numbers.
    """
    for key, tensor in state_dict.items():
        dense = tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)
        if not dense or tensor.is_complex():
            raise CheckpointError(
                f'{source} has something else than weights under {key}: expected a dense tensor of '
                'real numbers'
            )
        if not tensor.isfinite().all():
            raise CheckpointError(
                f'{source} has NaN or Inf in {key}: take a checkpoint from before the training '
                'went wrong'
            )


def check_tensors(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Check that a state dict holds tensors by name, and nothing else.

    Raises:
        CheckpointError: a key is not a string, or a value not a tensor.
    """
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f'{source} is no state dict: expected tensors by name, found '
                f'{type(value).__name__} under {key!r}'
            )


def read_state_dict(checkpoint: str) -> Mapping[str, Tensor]:
    """Read the state dict in a file.

    Args:
        checkpoint: as for `load_from_file`.

    Returns:
        The file's ``state_dict`` entry, or its ``model`` entry, as Swin's, PVT's and timm's
        trainings write, or else all of it.

    Raises:
        CheckpointError: as in `load_from_file`.
    """
    content = load_from_file(checkpoint)
    if isinstance(content, Mapping) and 'state_dict' not in content:
        model = content.get('model')
        content = model if isinstance(model, Mapping) else content
    return state_dict_in(content, checkpoint)


def state_dict_in(content: Any, source: str) -> Mapping[str, Tensor]:
    """The state dict in what a file holds, where MMEngine looks for it.

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


def load_from_file(filename: str, map_location: Any = 'cpu') -> Any:
    """Read all that is in a file; nothing in it is executed.

    Args:
        filename: a path, a URL, ``pytorchcv://<name>``, ``official://<name>``, or a name in one of
            MMEngine's other schemes, such as ``torchvision://``: these go to MMEngine's own loader,
            which trusts whoever published the file.
        map_location: as of `torch.load`. Defaults to 'cpu'.

    Returns:
        Tensors and plain data: Python's own types, NumPy's arrays and scalars of numbers, text and
        dates, MMEngine's ``ConfigDict`` and ``HistoryBuffer``.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint, or holds something else.
    """
    if isinstance(filename, str) and _is_left_to_mmengine(filename):
        try:
            return CheckpointLoader.load_checkpoint(filename, map_location)
        except Exception as error:  # whatever its schemes raise
            raise _not_available(filename, error) from error
    file = local_file(filename)
    try:
        with open(file, 'rb') as opened, _plain_data_allowed():
            return torch.load(opened, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever a damaged or a made-up file leads the reader to
        reason = _first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # torch advises to let the code in it run
            reason = 'it is damaged, or holds more than plain data, which could run code'
        raise CheckpointError(
            f'{filename} cannot be read as a checkpoint ({reason}): expected what torch.save '
            'makes of a state dict'
        ) from error


@contextmanager
def plain_data_only() -> Iterator[None]:
    """While this lasts, MMEngine too reads files and URLs by `load_from_file`.

    MMEngine's own loaders for them can be made to execute code in a file. A file that they cannot
    read with ``weights_only=True`` is read without it, and even with it a file may call
    ``getattr``, through which it gets at everything. Afterwards these loaders are back.
    """
    CheckpointLoader.register_scheme(['', *HTTP], load_from_file, force=True)
    try:
        yield
    finally:
        CheckpointLoader.register_scheme('', load_from_local, force=True)
        CheckpointLoader.register_scheme(list(HTTP), load_from_http, force=True)


@CheckpointLoader.register_scheme(prefixes=(PYTORCHCV, OFFICIAL))
def load_published(filename: str, map_location: Any = None) -> dict[str, dict[str, Tensor]]:
    """MMEngine's loader for the schemes above: a classifier's checkpoint under our names."""
    content = state_dict_in(load_from_file(filename, map_location), filename)
    return dict(state_dict=under_our_names(content, filename))


def local_file(checkpoint: str) -> Path:
    """Where the file behind a path or URL lies; downloads it first if it is not there yet.

    Args:
        checkpoint: a path, an http(s) URL, ``pytorchcv://<name>`` or ``official://<name>``.
            Downloads are kept where torch and pytorchcv keep theirs.

    Raises:
        CheckpointError: the download failed, or ``checkpoint`` is in none of these forms.
    """
    if not isinstance(checkpoint, str) or _is_left_to_mmengine(checkpoint):
        raise CheckpointError(
            f'expected the path or URL of a file with weights, {PYTORCHCV}<name> or '
            f'{OFFICIAL}<name>, got {checkpoint!r}'
        )
    if checkpoint.startswith(PYTORCHCV):
        return _pytorchcv_file(checkpoint)
    if checkpoint.startswith(OFFICIAL):
        return _released_file(checkpoint)
    if not checkpoint.startswith(HTTP):
        return Path(checkpoint).expanduser()
    path = _in_torch_hub(checkpoint)
    try:
        _download(checkpoint, path)
    except Exception as error:  # of whichever connection or file system it is
        raise _not_available(checkpoint, error) from error
    return path


def missing_release(url: str) -> str:
    """What to do by hand for the file of an ``official://<name>``; '' if it is there already.

    Raises:
        CheckpointError: the release has no file of that name.
    """
    link = _release_link(url)
    path = _in_torch_hub(link)
    return '' if path.exists() else f'download {link} with a browser and put it into {path.parent}'


def _released_file(url: str) -> Path:
    link = _release_link(url)
    path = _in_torch_hub(link)
    try:
        _download(f'{link}?dl=1', path)  # Dropbox's way to ask for the file itself
        with open(path, 'rb') as file:
            is_page = file.read(1) == b'<'
        if is_page:
            path.unlink()
            raise ValueError('there came a page for a browser')
    except Exception as error:  # of whichever connection or file system it is
        raise CheckpointError(
            f'{url} could not be downloaded ({_first_line(error)}): {missing_release(url)}, or '
            'give the path of the file'
        ) from error
    return path


def _release_link(url: str) -> str:
    name = url.removeprefix(OFFICIAL)
    if name not in RELEASED_FILES:
        raise CheckpointError(
            f"{url} names no file of the authors' release: expected {OFFICIAL} and one of "
            f'{", ".join(RELEASED_FILES)}'
        )
    return RELEASED_FILES[name]


def _in_torch_hub(url: str) -> Path:
    return Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)


def _download(url: str, path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))


def _pytorchcv_file(url: str) -> Path:
    try:
        from pytorchcv.models.common import model_store
    except ImportError as error:
        raise CheckpointError(
            f'{url} needs the package pytorchcv, which knows where the weights are: '
            '`pip install pytorchcv`, or give the path of a file'
        ) from error
    store = Path('~/.torch/models').expanduser()
    try:
        store.mkdir(parents=True, exist_ok=True)
        # Every rank of a run asks for the file, and pytorchcv unpacks it in place.
        with FileLock(store / 'mmfish.lock'):
            return Path(model_store.get_model_file(url.removeprefix(PYTORCHCV)))
    except Exception as error:  # whatever its downloader, hash check or table may raise
        raise _not_available(url, error) from error


def _is_left_to_mmengine(checkpoint: str) -> bool:
    return '://' in checkpoint and not checkpoint.startswith((*HTTP, PYTORCHCV, OFFICIAL))


def _not_available(checkpoint: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f'{checkpoint} could not be loaded ({_first_line(error)}): check the name and the network, '
        'or give the path of a file'
    )


def _first_line(error: Exception) -> str:
    line = str(error).strip().partition('\n')[0]
    return f'{type(error).__name__}: {line}' if line else type(error).__name__


def _plain_data_allowed() -> AbstractContextManager:
    # What is allowed already stays so afterwards.
    before = torch.serialization.get_safe_globals()
    new = [entry for entry in _plain_data() if entry not in before]
    if hasattr(torch.serialization, 'safe_globals'):
        return torch.serialization.safe_globals(new)
    torch.serialization.add_safe_globals(new)  # torch 2.4 cannot take them back
    return nullcontext()


@functools.cache
def _plain_data() -> list[Any]:
    """What may be in a file besides tensors, for torch's list of safe globals."""
    python = [bytes, bytearray, complex, frozenset, range, set, slice, codecs.encode]
    # Structured types and objects are left out: a run saves none, and they need not be plain.
    dtypes = {type(np.dtype(code)) for code in np.typecodes['All'] if code not in 'OV'}
    # NumPy's functions for arrays and scalars, whose module has another name before NumPy 2.
    numpy = [
        _named(makes, f'numpy.{core}.multiarray.{makes.__name__}')
        for makes in (np.empty(0).__reduce__()[0], np.float64().__reduce__()[0])
        for core in ('core', '_core')
    ]
    # What MMEngine adds to its checkpoints: the nested parts of a data set's metainfo, and the log.
    mmengine = [ConfigDict, HistoryBuffer, _named(_method_of_history, 'builtins.getattr')]
    return [*python, np.ndarray, np.dtype, *dtypes, *numpy, *mmengine]


def _named(function: Callable, path: str) -> Any:
    """An entry for torch's safe globals: what a file means by the name ``path``."""
    if torch.__version__ >= (2, 7):
        return function, path
    # Before torch took such pairs, it asked the function itself for its name.
    stand_in = functools.partial(function)
    stand_in.__module__, _, stand_in.__name__ = path.rpartition('.')
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


def _method_of_history(owner: Any, name: str) -> Any:
    # A HistoryBuffer in a file names its methods through getattr. With the real one a file could
    # get at anything, so this takes its place.
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner}, {name!r})')
    return getattr(owner, name)

"""A classifier's weights under our names, from the release's or pytorchcv's, and back."""

import hashlib
import io
import os
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from mmfish.atomic import write_atomically
from mmfish.checkpoints.key_maps import their_name, whose_names
from mmfish.checkpoints.loading import (
    backbone_in,
    check_fit,
    check_numbers,
    local_file,
    read_state_dict,
    under_our_names,
    without_module,
)
from mmfish.errors import UsageError
from mmfish.models import FishNet, FishNetClsHead

RELEASED = ('fishnet99', 'fishnet150', 'fishnet201')


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of the authors' release.

    Args:
        state_dict: of the released FishNet-99, -150 or -201, with any number of classes, with or
            without the ``module.`` that torch's DataParallel puts before each key.

    Returns:
        A state dict for mmpretrain's ``ImageClassifier(FishNet, FishNetClsHead)``: the same
        tensors under ``backbone.`` and ``head.``.

    Raises:
        CheckpointError: a key has no counterpart or is missing, or a tensor has another shape; the
            message names key and arch.
    """
    return _whole_classifier(state_dict, 'official')[1]


def from_pytorchcv(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of pytorchcv's FishNet-99 or -150, as `from_official` does."""
    return _whole_classifier(state_dict, 'pytorchcv')[1]


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a classifier's weights back: the inverse of `from_official`, without ``module.``."""
    _, ours = _whole_classifier(state_dict, 'mmfish')
    return {their_name(key, 'official'): tensor for key, tensor in ours.items()}


def convert_checkpoint(
    source: str,
    target: str | os.PathLike,
    *,
    backbone_only: bool = False,
    released_names: bool = False,
) -> dict[str, str]:
    """Write a classifier's weights, and nothing else, under our names or the released ones.

    Args:
        source: path or URL of a released file, a pytorchcv file or a classifier of ours, of
            FishNet-99, -150 or -201; or ``pytorchcv://fishnet150`` or ``official://fishnet99``.
        target: the file to write: ``dict(meta=..., state_dict=...)``. Folders that do not exist
            are made.
        backbone_only: only the backbone, under the names that it has by itself.
        released_names: the names of the authors' release, without ``module.``.

    Returns:
        What is in ``meta``: ``source``, the ``names`` that it had ('official', 'pytorchcv' or
        'mmfish'), its ``sha256``, and the ``arch``.

    Raises:
        CheckpointError: the source cannot be read, is no whole FishNet classifier, or has NaN or
            Inf in it; then nothing was written.
        UsageError: both options at once.
    """
    if backbone_only and released_names:
        raise UsageError(
            'the released networks are classifiers, under whose names there is no backbone alone: '
            'choose one of --backbone-only and --released-names'
        )
    state_dict = read_state_dict(source)
    names = whose_names(without_module(state_dict))
    arch, state_dict = _whole_classifier(state_dict, names)
    check_numbers(state_dict, source)
    sha256 = hashlib.sha256(local_file(source).read_bytes()).hexdigest()
    meta = dict(source=source, names=names, sha256=sha256, arch=arch)
    if released_names:
        state_dict = to_official(state_dict)
    elif backbone_only:
        state_dict = backbone_in(state_dict, source)
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=state_dict), buffer)
    write_atomically(target, buffer.getvalue())
    return meta


def _whole_classifier(
    state_dict: Mapping[str, Tensor], names: str
) -> tuple[str, dict[str, Tensor]]:
    """The released architecture that a classifier has, and all its weights under our names.

    Args:
        state_dict: of a classifier with any number of classes.
        names: whose names it has: 'official', 'pytorchcv' or 'mmfish'.

    Raises:
        CheckpointError: as in `from_official`.
    """
    source = f'this {names} checkpoint'
    ours = under_our_names(state_dict, source, names)
    biases = ours.get('head.score.6.bias')
    classes = 1000 if biases is None else biases.numel()
    arch = min(RELEASED, key=lambda arch: len(_network(arch).state_dict().keys() ^ ours.keys()))
    check_fit(_network(arch, classes), ours, source, arch, names)
    return arch, ours


@cache
def _network(arch: str, classes: int = 1000) -> nn.Module:
    with torch.device('meta'):
        return nn.ModuleDict(dict(backbone=FishNet(arch), head=FishNetClsHead(classes)))

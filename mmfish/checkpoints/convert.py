"""Rename a classifier's weights: from the release's or pytorchcv's names to ours, and back."""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mmfish.checkpoints.key_maps import official_name, pytorchcv_name, whose_names
from mmfish.checkpoints.loading import (
    backbone_in,
    check_numbers,
    check_tensors,
    local_file,
    read_state_dict,
    without_module,
)
from mmfish.errors import CheckpointError, UsageError
from mmfish.models import FishNet, FishNetClsHead

OFFICIAL_ARCHS = ('fishnet99', 'fishnet150', 'fishnet201')
PYTORCHCV_ARCHS = ('fishnet99', 'fishnet150')


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
    return _from_foreign(state_dict, official_name, OFFICIAL_ARCHS, 'released FishNet')


def from_pytorchcv(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of pytorchcv's port, as `from_official` does with the release.

    Args:
        state_dict: of pytorchcv's ``fishnet99`` or ``fishnet150``.

    Returns:
        The same tensors under ``backbone.`` and ``head.``.

    Raises:
        CheckpointError: as in `from_official`.
    """
    return _from_foreign(state_dict, pytorchcv_name, PYTORCHCV_ARCHS, 'pytorchcv')


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a classifier's weights back: the inverse of `from_official`.

    Args:
        state_dict: with ``backbone.`` and ``head.``, of one of the released architectures.

    Returns:
        The same tensors under the released names, without ``module.``.

    Raises:
        CheckpointError: as in `from_official`.
    """
    find_arch(state_dict, OFFICIAL_ARCHS, 'FishNet classifier')
    return {official_name(key): tensor for key, tensor in state_dict.items()}


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
            FishNet-99, -150 or -201; or ``pytorchcv://fishnet150``.
        target: the file to write: ``dict(meta=..., state_dict=...)``.
        backbone_only: only the backbone, under the names that it has by itself.
        released_names: the names of the authors' release, without ``module.``.

    Returns:
        What is in ``meta``: ``source``, the ``names`` that it had ('official', 'pytorchcv' or
        'mmfish'), its ``sha256``, and the ``arch``.

    Raises:
        CheckpointError: the source cannot be read, is no whole FishNet classifier, or has NaN or
            Inf in it; then nothing was written.
        UsageError: both options at once, or there is no folder to write to.
    """
    if backbone_only and released_names:
        raise UsageError(
            'the released networks are classifiers, under whose names there is no backbone alone: '
            'choose one of --backbone-only and --released-names'
        )
    target = Path(target)
    if not target.parent.is_dir():
        raise UsageError(f'there is no folder {target.parent} to write {target.name} to: make it')
    file = local_file(source)
    state_dict = without_module(read_state_dict(source))
    names = whose_names(state_dict)
    if names == 'official':
        state_dict = from_official(state_dict)
    elif names == 'pytorchcv':
        state_dict = from_pytorchcv(state_dict)
    arch = find_arch(state_dict, OFFICIAL_ARCHS, 'FishNet classifier')
    check_numbers(state_dict, source)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    meta = dict(source=source, names=names, sha256=sha256, arch=arch)
    if released_names:
        state_dict = to_official(state_dict)
    elif backbone_only:
        state_dict = backbone_in(state_dict, source)
    # Written beside its place and moved there: whoever finds the file finds it whole.
    partial = target.with_name(f'{target.name}.part')
    torch.save(dict(meta=meta, state_dict=state_dict), partial)
    os.replace(partial, target)
    return meta


def find_arch(
    state_dict: Mapping[str, Tensor],
    archs: tuple[str, ...],
    source: str,
    name: Callable[[str], str] = str,
) -> str:
    """Find which architecture a classifier's state dict belongs to, and check that it is whole.

    Args:
        state_dict: of a FishNet classifier with any number of classes.
        archs: the architectures to choose from.
        source: what the weights are, for messages.
        name: from our name of a tensor to that in ``state_dict``.

    Returns:
        The architecture.

    Raises:
        CheckpointError: a key too many or too few for the architecture that comes closest, or a
            tensor of another shape.
    """
    check_tensors(state_dict, f'this {source} checkpoint')
    expected = {arch: {name(key): shape for key, shape in _shapes(arch).items()} for arch in archs}
    arch = min(archs, key=lambda arch: len(expected[arch].keys() ^ state_dict.keys()))
    for problem, keys in (
        ('an unexpected', state_dict.keys() - expected[arch].keys()),
        ('no', expected[arch].keys() - state_dict.keys()),
    ):
        if keys:
            more = f' ({len(keys)} such keys)' if len(keys) > 1 else ''
            raise CheckpointError(
                f'this {source} checkpoint is closest to {arch} but has {problem} '
                f'{min(keys)}{more}: give a whole checkpoint of {", ".join(archs)}'
            )
    any_classes = {name(f'head.score.6.{tensor}') for tensor in ('weight', 'bias')}
    for key, shape in expected[arch].items():
        found = state_dict[key].shape
        if found != shape and not (key in any_classes and found[1:] == shape[1:]):
            raise CheckpointError(
                f'{key} of this {source} checkpoint has shape {tuple(found)}, but {arch} needs '
                f'{tuple(shape)}'
            )
    weight, bias = (state_dict[key].shape for key in sorted(any_classes, reverse=True))
    if weight[0] != bias[0]:
        raise CheckpointError(
            f'this {source} checkpoint has the weights of {weight[0]} classes and the biases of '
            f'{bias[0]}: give a whole checkpoint'
        )
    return arch


def _from_foreign(
    state_dict: Mapping[str, Tensor],
    name: Callable[[str], str],
    archs: tuple[str, ...],
    source: str,
) -> dict[str, Tensor]:
    check_tensors(state_dict, f'this {source} checkpoint')
    state_dict = without_module(state_dict)
    for key in [key for key in state_dict if key.endswith('.running_var')]:
        # PyTorch before 0.4.1, which the release was trained with, did not count batches.
        counter = key.replace('running_var', 'num_batches_tracked')
        state_dict.setdefault(counter, torch.tensor(0))
    arch = find_arch(state_dict, archs, source, name)
    return {key: state_dict[name(key)] for key in _shapes(arch)}


@cache
def _shapes(arch: str) -> dict[str, torch.Size]:
    with torch.device('meta'):
        parts = dict(backbone=FishNet(arch), head=FishNetClsHead())
    return {
        f'{part}.{key}': tensor.shape
        for part, module in parts.items()
        for key, tensor in module.state_dict().items()
    }

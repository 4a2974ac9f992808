"""The names that others gave to the same tensors.

A foreign name is a function of ours, so one table for each source serves both directions.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

from mmfish.errors import CheckpointError
from mmfish.models import FishNet, FishNetClsHead

OFFICIAL_ARCHS = ('fishnet99', 'fishnet150', 'fishnet201')
PYTORCHCV_ARCHS = ('fishnet99', 'fishnet150')

# Ours -> theirs. The convolutions of the stem alternate with BatchNorm and ReLU; inside a block the
# released names are our own.
_OFFICIAL = {
    **{f'backbone.stem.{3 * i + j}': f'conv{i + 1}.{j}' for i in range(3) for j in range(2)},
    **{f'backbone.tail.{i}.0': f'fish.fish.{i}.0' for i in range(3)},
    'backbone.bridge.score': 'fish.fish.3.0',
    'backbone.bridge.score.5': 'fish.fish.3.1',
    'backbone.bridge.blocks': 'fish.fish.3.2',
    'backbone.bridge.gate': 'fish.fish.3.3.0',
    **{f'backbone.body.{i}.refine': f'fish.fish.{4 + i}.0' for i in range(3)},
    **{f'backbone.body.{i}.transfer': f'fish.fish.{4 + i}.1' for i in range(3)},
    **{f'backbone.head.{i}.refine': f'fish.fish.{7 + i}.0' for i in range(3)},
    **{f'backbone.head.{i}.transfer': f'fish.fish.{7 + i}.1' for i in range(3)},
    'head.score': 'fish.fish.9.3',
    'head.score.6': 'fish.fish.9.4.1',
}
# pytorchcv counts its skip connections from the largest size, in both directions.
_PYTORCHCV = {
    **{
        f'backbone.stem.{3 * i + j}': f'features.init_block.conv{i + 1}.{kind}'
        for i in range(3)
        for j, kind in enumerate(('conv', 'bn'))
    },
    **{f'backbone.tail.{i}.0': f'features.hg.down1_seq.unit{i + 1}.blocks' for i in range(3)},
    'backbone.bridge.score.0': 'features.hg.skip1_seq.unit4.conv1.bn',
    'backbone.bridge.score.2': 'features.hg.skip1_seq.unit4.conv1.conv',
    'backbone.bridge.score.3': 'features.hg.skip1_seq.unit4.conv2.bn',
    'backbone.bridge.score.5': 'features.hg.skip1_seq.unit4.conv2.conv',
    'backbone.bridge.blocks': 'features.hg.skip1_seq.unit4.blocks',
    'backbone.bridge.gate.0': 'features.hg.skip1_seq.unit4.se.bn',
    'backbone.bridge.gate.3': 'features.hg.skip1_seq.unit4.se.conv1',
    'backbone.bridge.gate.5': 'features.hg.skip1_seq.unit4.se.conv2',
    **{f'backbone.body.{i}.refine': f'features.hg.up_seq.unit{i + 1}.blocks' for i in range(3)},
    **{
        f'backbone.body.{i}.transfer': f'features.hg.skip1_seq.unit{3 - i}.blocks' for i in range(3)
    },
    **{f'backbone.head.{i}.refine': f'features.hg.down2_seq.unit{i + 1}.blocks' for i in range(3)},
    **{
        f'backbone.head.{i}.transfer': f'features.hg.skip2_seq.unit{3 - i}.blocks' for i in range(3)
    },
    'head.score.0': 'features.final_block.conv1.bn',
    'head.score.2': 'features.final_block.conv1.conv',
    'head.score.3': 'features.final_block.preactiv.bn',
    'head.score.6': 'output.final_conv',
}
_PYTORCHCV_BLOCK = {
    **{f'{kind}{i}': f'body.conv{i}.{kind}' for kind in ('bn', 'conv') for i in (1, 2, 3)},
    'shortcut.0': 'identity_conv.bn',
    'shortcut.2': 'identity_conv.conv',
}


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


def official_name(key: str) -> str:
    """The released name of a tensor of ours, e.g. ``backbone.stem.0.weight``."""
    prefix = _prefix(key, _OFFICIAL)
    return _OFFICIAL[prefix] + key.removeprefix(prefix)


def pytorchcv_name(key: str) -> str:
    """Pytorchcv's name of a tensor of ours, e.g. ``backbone.stem.0.weight``."""
    prefix = _prefix(key, _PYTORCHCV)
    name = key.removeprefix(prefix)
    block = re.fullmatch(r'\.(\d+)\.(.+)\.(\w+)', name)
    if block:
        number, layer, tensor = block.groups()
        name = f'.block{int(number) + 1}.{_PYTORCHCV_BLOCK[layer]}.{tensor}'
    return _PYTORCHCV[prefix] + name


def find_arch(
    state_dict: Mapping[str, Tensor],
    archs: tuple[str, ...],
    source: str,
    name: Callable[[str], str] = str,
) -> str:
    """Find which architecture a classifier's state dict belongs to, and that it is whole.

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


def check_tensors(state_dict: Mapping[str, Tensor], source: str) -> None:
    """See whether a state dict is one: tensors under names.

    Args:
        state_dict: the tensors.
        source: what it is, for the message.

    Raises:
        CheckpointError: a key is no string, or a value no tensor; names it.
    """
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f'{source} is no state dict: expected tensors by name, found '
                f'{type(value).__name__} under {key!r}'
            )


def _from_foreign(
    state_dict: Mapping[str, Tensor],
    name: Callable[[str], str],
    archs: tuple[str, ...],
    source: str,
) -> dict[str, Tensor]:
    check_tensors(state_dict, f'this {source} checkpoint')
    state_dict = {key.removeprefix('module.'): tensor for key, tensor in state_dict.items()}
    for key in [key for key in state_dict if key.endswith('.running_var')]:
        # PyTorch before 0.4.1, which the release was trained with, did not count batches.
        counter = key.replace('running_var', 'num_batches_tracked')
        state_dict.setdefault(counter, torch.tensor(0))
    arch = find_arch(state_dict, archs, source, name)
    return {key: state_dict[name(key)] for key in _shapes(arch)}


def _prefix(key: str, prefixes: Mapping[str, str]) -> str:
    # The longest: 'backbone.bridge.score.5' before 'backbone.bridge.score'.
    return max((prefix for prefix in prefixes if key.startswith(f'{prefix}.')), key=len)


@cache
def _shapes(arch: str) -> dict[str, torch.Size]:
    with torch.device('meta'):
        parts = dict(backbone=FishNet(arch), head=FishNetClsHead())
    return {
        f'{part}.{key}': tensor.shape
        for part, module in parts.items()
        for key, tensor in module.state_dict().items()
    }

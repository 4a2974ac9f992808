"""The state dict of the authors' release, as one of ours."""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from mmfish.models import FishNet, FishNetClsHead

# Released name -> our name, up to the numbers of stages and blocks: inside a block the names agree.
_STAGES = 3
_PREFIXES = {
    **{f'conv{i + 1}.{j}.': f'backbone.stem.{3 * i + j}.' for i in range(3) for j in range(2)},
    **{f'fish.fish.{i}.0.': f'backbone.tail.{i}.0.' for i in range(_STAGES)},
    'fish.fish.3.0.': 'backbone.bridge.score.',
    'fish.fish.3.1.': 'backbone.bridge.score.5.',
    'fish.fish.3.2.': 'backbone.bridge.blocks.',
    'fish.fish.3.3.0.': 'backbone.bridge.gate.',
    **{
        f'fish.fish.{first + i}.{j}.': f'backbone.{part}.{i}.{path}.'
        for first, part in ((4, 'body'), (7, 'head'))
        for i in range(_STAGES)
        for j, path in enumerate(('refine', 'transfer'))
    },
    'fish.fish.9.3.': 'head.score.',
    'fish.fish.9.4.1.': 'head.score.6.',
}
ARCHS = ('fishnet99', 'fishnet150', 'fishnet201')


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the released network's weights.

    Args:
        state_dict: of the released FishNet-99, -150 or -201, with or without the ``module.`` that
            torch's DataParallel puts before each key.

    Returns:
        A state dict for mmpretrain's ``ImageClassifier(FishNet, FishNetClsHead)``: the same
        tensors under ``backbone.`` and ``head.``.

    Raises:
        KeyError: a key has no counterpart, or one is missing; the message names it and the arch.
        ValueError: a tensor has another shape than the arch asks for.
    """
    renamed = {_rename(key): tensor for key, tensor in state_dict.items()}
    check_complete(renamed, ARCHS, source='released FishNet')
    return renamed


def check_complete(state_dict: Mapping[str, Tensor], archs: tuple[str, ...], source: str) -> str:
    """Find which arch a classifier's state dict belongs to, and that it is whole.

    Args:
        state_dict: under our names, with any number of classes.
        archs: the names to choose from.
        source: what the weights are, for messages.

    Returns:
        The arch.

    Raises:
        KeyError: a key too many or too few for the arch that comes closest.
        ValueError: a tensor of another shape.
    """
    arch = min(archs, key=lambda name: len(_shapes(name).keys() ^ state_dict.keys()))
    expected = _shapes(arch)
    for problem, keys in (
        ('lacks', expected.keys() - state_dict.keys()),
        ('has an unexpected', state_dict.keys() - expected.keys()),
    ):
        if keys:
            raise KeyError(
                f'this {source} checkpoint comes closest to {arch} but {problem} '
                f'{min(keys)} (and {len(keys) - 1} more): is it a whole checkpoint of {arch}?'
            )
    for key, shape in expected.items():
        # The number of classes is the checkpoint's own affair.
        if state_dict[key].shape[1:] != shape[1:] or (
            state_dict[key].shape != shape and not key.startswith('head.score.6.')
        ):
            raise ValueError(
                f'{key} of this {source} checkpoint has shape {tuple(state_dict[key].shape)}, '
                f'but {arch} needs {tuple(shape)}'
            )
    return arch


def _rename(key: str) -> str:
    name = key.removeprefix('module.')
    # The longest prefix: 'fish.fish.3.3.0.' before what is shorter.
    for prefix in sorted(_PREFIXES, key=len, reverse=True):
        if name.startswith(prefix):
            return _PREFIXES[prefix] + name.removeprefix(prefix)
    raise KeyError(
        f'{key} is no key of a released FishNet checkpoint: expected conv1.0.weight, '
        'fish.fish.0.0.0.bn1.weight and the like'
    )


@lru_cache
def _shapes(arch: str) -> dict[str, torch.Size]:
    with torch.device('meta'):
        parts = dict(backbone=FishNet(arch), head=FishNetClsHead())
    return {
        f'{part}.{key}': tensor.shape
        for part, module in parts.items()
        for key, tensor in module.state_dict().items()
    }

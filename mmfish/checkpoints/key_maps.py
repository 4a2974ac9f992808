"""The names that the authors' release and pytorchcv gave to the tensors of a FishNet.

There is one table of prefixes for each source. It serves networks of any depth, and is read in both
directions: the longest prefix of a name that is in the table is replaced.
"""

import re
from collections.abc import Iterable, Mapping

# Ours -> theirs. In the stem each convolution is followed by BatchNorm and ReLU, so there is a
# convolution at every third place. Within a block the released names are the same as ours.
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
_PREFIXES = dict(official=_OFFICIAL, pytorchcv=_PYTORCHCV, mmfish={})


def whose_names(keys: Iterable[str]) -> str:
    """Whose names a state dict has: 'official', 'pytorchcv', or 'mmfish' for everything else.

    Args:
        keys: of the state dict, without the ``module.`` of torch's DataParallel.
    """
    for prefix, source in (('fish.', 'official'), ('features.hg.', 'pytorchcv')):
        if any(key.startswith(prefix) for key in keys):
            return source
    return 'mmfish'


def their_name(key: str, source: str) -> str:
    """The name that somebody else gave to a tensor of a classifier of ours.

    Args:
        key: in a classifier of ours, e.g. ``backbone.stem.0.weight``.
        source: as `whose_names` returns it.

    Returns:
        The name; one that is not in the tables is returned as it is.
    """
    key = _with_other_prefix(key, _PREFIXES[source])
    block = re.fullmatch(r'(features\.hg\..+)\.(\d+)\.(.+)\.(\w+)', key)
    if block is None or block[3] not in _PYTORCHCV_BLOCK:
        return key
    prefix, number, layer, tensor = block.groups()
    return f'{prefix}.block{int(number) + 1}.{_PYTORCHCV_BLOCK[layer]}.{tensor}'


def our_name(key: str, source: str) -> str:
    """The inverse of `their_name`."""
    block = re.fullmatch(r'(features\.hg\..+)\.block(\d+)\.(.+)\.(\w+)', key)
    layers = _inverse(_PYTORCHCV_BLOCK)
    if block and block[3] in layers:
        prefix, number, layer, tensor = block.groups()
        key = f'{prefix}.{int(number) - 1}.{layers[layer]}.{tensor}'
    return _with_other_prefix(key, _inverse(_PREFIXES[source]))


def _with_other_prefix(key: str, prefixes: Mapping[str, str]) -> str:
    known = [prefix for prefix in prefixes if key.startswith(f'{prefix}.')]
    if not known:
        return key
    # The longest: 'backbone.bridge.score.5' before 'backbone.bridge.score'.
    prefix = max(known, key=len)
    return prefixes[prefix] + key.removeprefix(prefix)


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}

"""The names that the authors' release and pytorchcv gave to the tensors of a FishNet.

Only names are here, no tensors. A name is translated by its longest prefix in a table, so that one
table for each source serves networks of any depth, in both directions.
"""

import re
from collections.abc import Iterable, Mapping

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


def whose_names(keys: Iterable[str]) -> str:
    """Recognise by its keys whose names a state dict uses.

    Args:
        keys: of a state dict, without the ``module.`` of torch's DataParallel.

    Returns:
        'official', 'pytorchcv', or 'mmfish' for everything else.
    """
    for prefix, source in (('fish.', 'official'), ('features.hg.', 'pytorchcv')):
        if any(key.startswith(prefix) for key in keys):
            return source
    return 'mmfish'


def official_name(key: str) -> str:
    """The released name of a tensor of ours, e.g. ``backbone.stem.0.weight``."""
    return _with_other_prefix(key, _OFFICIAL)


def pytorchcv_name(key: str) -> str:
    """Pytorchcv's name of a tensor of ours, e.g. ``backbone.stem.0.weight``."""
    key = _with_other_prefix(key, _PYTORCHCV)
    block = re.fullmatch(r'(features\.hg\..+)\.(\d+)\.(.+)\.(\w+)', key)
    if block is None or block[3] not in _PYTORCHCV_BLOCK:
        return key
    prefix, number, layer, tensor = block.groups()
    return f'{prefix}.block{int(number) + 1}.{_PYTORCHCV_BLOCK[layer]}.{tensor}'


def our_name(key: str, source: str) -> str:
    """Our name of a tensor of somebody else's: the inverse of the two functions above.

    Args:
        key: a name as ``source`` writes it.
        source: 'official', 'pytorchcv' or 'mmfish'.

    Returns:
        The name in a classifier of ours (``backbone.*``, ``head.*``); a name that the source does
        not have is returned as it is.
    """
    if source == 'official':
        return _with_other_prefix(key, _inverse(_OFFICIAL))
    if source == 'pytorchcv':
        block = re.fullmatch(r'(.+)\.block(\d+)\.(.+)\.(\w+)', key)
        layers = _inverse(_PYTORCHCV_BLOCK)
        if block and block[3] in layers:
            prefix, number, layer, tensor = block.groups()
            key = f'{prefix}.{int(number) - 1}.{layers[layer]}.{tensor}'
        return _with_other_prefix(key, _inverse(_PYTORCHCV))
    return key


def _with_other_prefix(key: str, prefixes: Mapping[str, str]) -> str:
    known = [prefix for prefix in prefixes if key.startswith(f'{prefix}.')]
    if not known:
        return key
    # The longest: 'backbone.bridge.score.5' before 'backbone.bridge.score'.
    prefix = max(known, key=len)
    return prefixes[prefix] + key.removeprefix(prefix)


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}

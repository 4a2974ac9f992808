"""The architectures as data: one entry per network, one key per part of the fish.

Of a part with several stages, each tuple lists its stages in the order in which they compute.

==============  ================================================================================
``stem``        channels after the three 3x3 convolutions
``tail``        ``channels`` and number of ``blocks`` of each stage
``bridge``      ``blocks``; it keeps the channels of the last tail stage
``body``        ``channels``, ``blocks`` and ``transfers`` (blocks on the way from the tail)
``head``        ``blocks`` and ``transfers`` (blocks on the way from the body and the bridge);
                its channels follow from what the concatenations bring together
``expansion``   optional, 4: a bottleneck is ``out_channels / expansion`` wide
``group_width`` optional, none: channels per group of the 3x3 convolutions at stride 4, doubling
                with each stride (FishNeXt)
==============  ================================================================================

Where the numbers come from:

- FishNet-99, -150 and -201: the released code. The paper's section 4 gives their depths only.
- FishNeXt-150: FishNet-150 with the groups that the paper calls "4d". ``expansion=2`` is OUR
  INFERENCE: with it the parameters come to 25.7M, and the paper has 26.2M.
- FishNet-77 and -55: a reproduction on images of 56x56. FishNet-77 is FishNet-99 with all channels
  divided by four. FishNet-55 has them divided by eight, and two stages in each part. In its report
  the last head stage has 48 channels; here it has the 80 that the concatenation brings together.
- FishNeXt-229 is OUR RECONSTRUCTION, because its block counts were never published. A released
  network is named after its layers: three for each block, and 12 more. 72 blocks and a stem of two
  residual blocks (one more layer) make 229. It has nine blocks more than FishNet-201, all of them
  at stride 16, where FishNet-201 has most of what it adds to FishNet-150.
"""

from collections.abc import Mapping
from typing import Any

from mmfish.errors import ConfigError

ARCHS: dict[str, dict[str, Any]] = dict(
    fishnet55=dict(
        stem=8,
        tail=dict(channels=(16, 32), blocks=(2, 3)),
        bridge=dict(blocks=2),
        body=dict(channels=(32, 24), blocks=(1, 1), transfers=(1, 1)),
        head=dict(blocks=(1, 2), transfers=(1, 4)),
    ),
    fishnet77=dict(
        stem=16,
        tail=dict(channels=(32, 64, 128), blocks=(2, 2, 6)),
        bridge=dict(blocks=2),
        body=dict(channels=(128, 96, 64), blocks=(1, 1, 1), transfers=(1, 1, 1)),
        head=dict(blocks=(1, 2, 2), transfers=(1, 1, 4)),
    ),
    fishnet99=dict(
        stem=64,
        tail=dict(channels=(128, 256, 512), blocks=(2, 2, 6)),
        bridge=dict(blocks=2),
        body=dict(channels=(512, 384, 256), blocks=(1, 1, 1), transfers=(1, 1, 1)),
        head=dict(blocks=(1, 2, 2), transfers=(1, 1, 4)),
    ),
    fishnet150=dict(
        stem=64,
        tail=dict(channels=(128, 256, 512), blocks=(2, 4, 8)),
        bridge=dict(blocks=4),
        body=dict(channels=(512, 384, 256), blocks=(2, 2, 2), transfers=(2, 2, 2)),
        head=dict(blocks=(2, 2, 4), transfers=(2, 2, 4)),
    ),
    fishnet201=dict(
        stem=64,
        tail=dict(channels=(128, 256, 512), blocks=(3, 4, 12)),
        bridge=dict(blocks=4),
        body=dict(channels=(512, 384, 256), blocks=(2, 2, 2), transfers=(2, 2, 2)),
        head=dict(blocks=(2, 3, 10), transfers=(2, 2, 9)),
    ),
    fishnext150=dict(
        stem=64,
        tail=dict(channels=(128, 256, 512), blocks=(2, 4, 8)),
        bridge=dict(blocks=4),
        body=dict(channels=(512, 384, 256), blocks=(2, 2, 2), transfers=(2, 2, 2)),
        head=dict(blocks=(2, 2, 4), transfers=(2, 2, 4)),
        expansion=2,
        group_width=4,
    ),
    fishnext229=dict(
        stem=64,
        tail=dict(channels=(128, 256, 512), blocks=(3, 4, 16)),
        bridge=dict(blocks=4),
        body=dict(channels=(512, 384, 256), blocks=(2, 2, 2), transfers=(2, 2, 2)),
        head=dict(blocks=(2, 3, 12), transfers=(2, 2, 12)),
        expansion=2,
        group_width=4,
    ),
)

# More channels or blocks than this are a slip of the pen, which would exhaust the memory.
MOST = 10_000

OPTIONAL = dict(expansion=4, group_width=None)
REQUIRED = dict(
    tail=('channels', 'blocks'),
    bridge=('blocks',),
    body=('channels', 'blocks', 'transfers'),
    head=('blocks', 'transfers'),
)


def resolve_arch(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    """Look up or check an architecture.

    Args:
        arch: a name in `ARCHS`, or a mapping in the form of its entries.

    Returns:
        A complete entry, optional keys filled in.

    Raises:
        ConfigError: the name is unknown, or a field is missing, unknown or malformed; the message
            names it.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ConfigError(
                f'unknown arch {arch!r}: expected one of {", ".join(ARCHS)}, or a dict in the form '
                'of the entries of mmfish.models.ARCHS'
            )
        return {**OPTIONAL, **ARCHS[arch]}
    if not isinstance(arch, Mapping):
        raise ConfigError(f'arch must be a name or a dict, got {type(arch).__name__}')

    _check_keys('arch', arch, required=('stem', *REQUIRED), optional=OPTIONAL)
    for part, fields in REQUIRED.items():
        if not isinstance(arch[part], Mapping):
            raise ConfigError(f'arch[{part!r}] must be a dict, got {arch[part]!r}')
        _check_keys(f'arch[{part!r}]', arch[part], required=fields)
    arch = {**OPTIONAL, **arch}

    # At least two where the network uses half of the channels.
    _check_number("arch['stem']", arch['stem'], least=2)
    _check_number("arch['expansion']", arch['expansion'])
    if arch['group_width'] is not None:
        _check_number("arch['group_width']", arch['group_width'])
    _check_number("arch['bridge']['blocks']", arch['bridge']['blocks'])
    stages = _length("arch['tail']['channels']", arch['tail']['channels'])
    for part in ('tail', 'body', 'head'):
        for field in REQUIRED[part]:
            name, values = f'arch[{part!r}][{field!r}]', arch[part][field]
            if _length(name, values) != stages:
                raise ConfigError(
                    f'{name} has {len(values)} entries, expected {stages}: one for each stage, '
                    "as arch['tail']['channels'] has"
                )
            for value in values:
                _check_number(name, value)
    _check_number("arch['tail']['channels'][-1]", arch['tail']['channels'][-1], least=2)
    return arch


def _check_keys(name: str, fields: Mapping, required: tuple, optional: Any = ()) -> None:
    for key in required:
        if key not in fields:
            raise ConfigError(f'{name} lacks the field {key!r}: expected {", ".join(required)}')
    for key in fields:
        if key not in required and key not in optional:
            known = ', '.join((*required, *optional))
            raise ConfigError(f'{name} has an unknown field {key!r}: expected {known}')


def _check_number(name: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise ConfigError(f'{name} must hold whole numbers in {least}..{MOST}, got {value!r}')


def _length(name: str, values: Any) -> int:
    if not isinstance(values, (tuple, list)) or not values:
        raise ConfigError(f'{name} must be a tuple with one entry for each stage, got {values!r}')
    return len(values)

"""FishNet into anybody's config: `plug_in`.

The old backbone and FishNet run on torch's meta device, without computing anything, to see the
channels and strides of their levels, and what reads the old channels gets the new ones. `SPECIAL`
has the few components for which that is not the whole story.
"""

import copy
import difflib
import inspect
import itertools
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, Registry
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfish.config.paths import dicts, read_config
from mmfish.errors import UsageError
from mmfish.models import FishNet

# The archs with public weights that need no manual download.
WEIGHTS = dict(fishnet150='pytorchcv://fishnet150')
# What those were trained with: ImageNet's statistics, RGB.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

# Components, wherever they stand in a model, that more has to be done about than to tell them
# their channels: 'project' FishNet's levels to the old widths, because their own are fixed;
# 'pass', they have no channels and hand on those that they get; or why FishNet cannot go in.
SPECIAL = dict(
    ResLayer='project',
    GlobalAveragePooling='pass',
    TridentResNet='its branches with different dilations are the detector itself (trident blocks)',
    RFP='its neck runs the backbone again and feeds its own outputs into it, which takes a '
    'DetectoRS_ResNet (recursive feature pyramid)',
)
# Options that make another network of a ResNet, and that FishNet does not have.
LOST = ('dcn', 'plugins', 'conv_cfg', 'sac')
# Parts of a model that hold trained networks of their own, which stay what they are.
APART = ('reid', 'teacher_backbone', 'teacher_neck', 'teacher_bbox_head')


@dataclass
class Levels:
    """What a backbone returns: channels and stride of each level."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


def plug_in(
    cfg: Config | str | os.PathLike,
    arch: str | Mapping[str, Any] = 'fishnet150',
    **backbone_options: Any,
) -> Config:
    """Put FishNet in the place of the ResNet-like backbone of any config of MMDetection.

    The levels stay the same (``out_indices``), and so do ``frozen_stages``, ``norm_cfg``,
    ``norm_eval``, ``with_cp`` and ``in_channels``. Necks, or heads where there is no neck, get
    FishNet's channels; where theirs cannot be set, a `FishHeadAdapter` brings FishNet's levels to
    the old ones. Images are normalised as FishNet's weights expect, ImageNet's mean and standard
    deviation in RGB. A checkpoint of the whole detector, in ``init_cfg``, is left out. Optimiser,
    schedule and data stay as they are.

    Args:
        cfg: a config, its path, or ``mmdet::<path>``. It is not changed.
        arch: of `FishNet`. Defaults to 'fishnet150', the only one with public weights, from which
            it starts where they fit (not with GroupNorm, for example). Others start from nothing.
        **backbone_options: further options of `FishNet`; they have the last word. ``init_cfg``
            takes the place of the public weights.

    Returns:
        A new config.

    Raises:
        UsageError: the config has no ResNet-like backbone, FishNet has no levels of the strides
            that it needs, or the options are none of FishNet's; says which and why.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else read_config(cfg)
    chains = _hosts(cfg)
    with _registry(cfg) as registry:
        chains_with_resnet = [c for c in chains if _is_resnet(registry, c[-1].backbone)]
        for chain in chains_with_resnet:
            _plug_into(chain[-1], registry, arch, backbone_options)
    if not chains_with_resnet:
        raise UsageError(
            f'{cfg.filename or "the config"} has no ResNet-like backbone that FishNet could take '
            f'the place of: expected one in model, or in its detector, and found '
            f'{", ".join(_name(chain[-1].backbone) for chain in chains) or "none"}'
        )
    _normalise_as_imagenet(cfg.get('data_preprocessor'))
    for model in itertools.chain(*chains_with_resnet):
        _normalise_as_imagenet(model.get('data_preprocessor'))
        if _is_pretrained(model.get('init_cfg')):
            # It would take the place of every part's own initialisation.
            del model.init_cfg
        # MMSegmentation's way to say what the backbone starts from.
        model.pop('pretrained', None)
    return cfg


def config_diff(before: str, after: str, name: str = 'before') -> str:
    """What changed between two configs, as a unified diff.

    Args:
        before: the text of one (``Config.pretty_text``).
        after: that of the other.
        name: of the first.
    """
    texts = [text.splitlines() for text in (before, after)]
    return '\n'.join(difflib.unified_diff(*texts, name, 'with the options', lineterm=''))


def resnet_like(cfg: Config) -> bool:
    """Whether `plug_in` finds a backbone in a config that FishNet could take the place of."""
    with _registry(cfg) as registry:
        return any(_is_resnet(registry, chain[-1].backbone) for chain in _hosts(cfg))


def _registry(cfg: Config) -> AbstractContextManager[Registry]:
    return MODELS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet')


def _hosts(cfg: Config) -> list[list[ConfigDict]]:
    """The models with a backbone in a config, each with those around it, outermost first."""

    def within(chain: list[ConfigDict]) -> Iterator[list[ConfigDict]]:
        model = chain[-1]
        if isinstance(model.get('backbone'), dict):
            yield chain
        for key, part in model.items():
            if isinstance(part, dict) and key != 'backbone' and key not in APART:
                yield from within([*chain, part])

    return list(within([cfg.get('model') or ConfigDict()]))


def _is_resnet(registry: Registry, backbone: ConfigDict) -> bool:
    kind = backbone.get('type')
    kind = kind if inspect.isclass(kind) else registry.get(str(kind))
    # By name, for MMDetection's ResNet and MMPretrain's and those derived from either.
    return kind is not None and 'ResNet' in (base.__name__ for base in kind.__mro__)


def _plug_into(
    host: ConfigDict, registry: Registry, arch: str | Mapping, backbone_options: Mapping[str, Any]
) -> None:
    backbone = host.backbone
    parts = {key: part for key, part in host.items() if key not in APART}
    special = {name: SPECIAL[name] for name in map(_name, dicts(parts)) if name in SPECIAL}
    for name, reason in special.items():
        if reason not in ('project', 'pass'):
            raise UsageError(f'FishNet cannot go into a model with {name}: {reason}')

    old, old_levels = _old_backbone(registry, backbone)
    lost = [name for name in LOST if backbone.get(name)]
    if lost:
        warnings.warn(
            f'FishNet has no {", ".join(lost)}, which the {_name(backbone)} of this config has: '
            'left out',
            stacklevel=3,
        )
    options = dict(
        arch=arch,
        in_channels=backbone.get('in_channels', 3),
        out_indices=tuple(old.out_indices),
        frozen_stages=old.frozen_stages,
        norm_cfg=backbone.get('norm_cfg') or dict(type='BN'),
        norm_eval=old.norm_eval,
        with_cp=old.with_cp,
    )
    options.update(backbone_options)
    fish = _fishnet({**options, 'norm_cfg': None, 'init_cfg': None})
    if options['frozen_stages'] == 4 and 'frozen_stages' not in backbone_options:
        # All of a ResNet; of a fish only what comes before the body.
        options['frozen_stages'] = 3 * len(fish.tail) + 1
    levels = _levels(fish, options['in_channels'])
    _check_strides(
        f'{_name(backbone)} has at out_indices={old.out_indices}', old_levels, options, levels
    )
    if 'norm_cfg' not in backbone_options:
        _fit_groups(options, fish)
    shapes = _shapes(options)
    if 'init_cfg' not in backbone_options:
        options['init_cfg'] = _weights(options, shapes)

    host.backbone = ConfigDict(type='mmfish.FishNet', **options)
    if options['init_cfg'] is None:
        del host.backbone.init_cfg
    if 'project' in special.values() or not _set_channels(
        host, old_levels.channels, levels.channels
    ):
        adapter = ConfigDict(
            type='mmfish.FishHeadAdapter',
            in_channels=list(levels.channels),
            out_channels=list(old_levels.channels),
        )
        host.neck = [adapter, *_necks(host)]


def _old_backbone(registry: Registry, backbone: ConfigDict) -> tuple[nn.Module, Levels]:
    """Build the old backbone, without what has no influence on its levels."""
    left_out = (*LOST, 'output_img', 'init_cfg', 'pretrained')
    plain = {key: value for key, value in backbone.items() if key not in left_out}
    plain['norm_cfg'] = dict(type='BN')
    # Not on the meta device at once: some compute their depths of stochastic depth with tensors.
    try:
        net = registry.build(plain).to('meta')
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise UsageError(
            f'the {_name(backbone)} that FishNet would take the place of cannot be built itself: '
            f'{type(error).__name__} {error}'
        ) from error
    return net, _levels(net, backbone.get('in_channels', 3))


def _fishnet(options: Mapping[str, Any]) -> FishNet:
    try:
        with torch.device('meta'):
            return FishNet(**options)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(f'FishNet cannot be built with these options: {error}') from error


def _levels(net: nn.Module, in_channels: int) -> Levels:
    net.eval()  # some return nothing
    size = 256
    with torch.no_grad():
        levels = net(torch.empty(1, in_channels, size, size, device='meta'))
    return Levels(
        tuple(level.shape[1] for level in levels),
        tuple(size // level.shape[-1] for level in levels),
    )


def _check_strides(old_has: str, old: Levels, options: Mapping[str, Any], new: Levels) -> None:
    if old.strides == new.strides:
        return
    all_strides = _levels(
        _fishnet({**options, 'norm_cfg': None, 'init_cfg': None, 'out_indices': None}),
        options['in_channels'],
    ).strides
    hint = ''
    if set(old.strides) <= set(all_strides) and len(set(old.strides)) == len(old.strides):
        out_indices = tuple(all_strides.index(stride) for stride in old.strides)
        hint = f': pass out_indices={out_indices} to take the levels of those strides instead'
    raise UsageError(
        f'the rest of this model is made for levels of strides {old.strides}, which its '
        f"{old_has}, and FishNet's at out_indices={tuple(options['out_indices'])} have "
        f'{new.strides}{hint}'
    )


def _fit_groups(options: dict[str, Any], fish: FishNet) -> None:
    """Give GroupNorm no more groups than divide the channels of all of FishNet's norm layers."""
    if options['norm_cfg'].get('type') != 'GN':
        return
    channels = [m.num_features for m in fish.modules() if isinstance(m, _BatchNorm)]
    groups = options['norm_cfg'].get('num_groups', 32)
    fitting = math.gcd(groups, *channels)
    if fitting != groups:
        warnings.warn(
            f"GroupNorm gets {fitting} groups, because {groups} do not divide FishNet's channels",
            stacklevel=4,
        )
    options['norm_cfg'] = {**options['norm_cfg'], 'num_groups': fitting}


def _weights(options: Mapping[str, Any], shapes: dict[str, torch.Size]) -> dict | None:
    """The public weights of an arch as ``init_cfg``; None if there are none, or they do not fit."""
    arch = options['arch']
    if isinstance(arch, str) and arch in WEIGHTS:
        if shapes == _shapes(dict(arch=arch, out_indices=options['out_indices'])):
            return dict(type='Pretrained', checkpoint=WEIGHTS[arch])
        reason = f'the public weights of {arch} do not fit these options'
    else:
        reason = f'there are public weights of {", ".join(WEIGHTS)} only, not of {arch}'
    warnings.warn(
        f'FishNet starts from nothing, because {reason}: pass init_cfg for weights of your own, or '
        'frozen_stages=-1 and norm_eval=False to train all of it',
        stacklevel=4,
    )
    return None


def _shapes(options: Mapping[str, Any]) -> dict[str, torch.Size]:
    state_dict = _fishnet(options).state_dict()
    return {key: t.shape for key, t in state_dict.items() if 'num_batches_tracked' not in key}


def _set_channels(host: ConfigDict, old: Sequence[int], new: Sequence[int]) -> bool:
    """Tell the first component that reads the backbone, or the heads without any, its channels."""
    for neck in _necks(host):
        if SPECIAL.get(_name(neck)) != 'pass':
            return _replace(neck, old, new)
    heads = [host[key] for key in host if key not in ('backbone', 'neck', *APART)]
    return any([_replace(head, old, new) for head in heads])


def _replace(node: Any, old: Sequence[int], new: Sequence[int]) -> bool:
    """Replace lists of old channels, and single numbers, which are one level's."""
    if isinstance(node, (list, tuple)):
        return any([_replace(part, old, new) for part in node])
    if not isinstance(node, dict):
        return False
    found = False
    widths = dict(zip(old, new, strict=True))
    # MMSegmentation's heads say which level they read; where nothing is said it is the last.
    level = node.get('in_index', -1)
    # RoI extractors have the channels of what they read in out_channels.
    fields = ('in_channels', 'out_channels') if 'roi_layer' in node else ('in_channels',)
    for key, value in node.items():
        if key not in fields:
            found |= _replace(value, old, new)
        elif isinstance(level, int) and value == old[level]:
            node[key], found = new[level], True
        elif isinstance(value, (list, tuple)) and value and set(value) <= set(widths):
            node[key], found = type(value)(widths[channels] for channels in value), True
    return found


def _normalise_as_imagenet(preprocessor: Any) -> None:
    for node in dicts(preprocessor):
        if len(node.get('mean') or ()) == 3:
            node['mean'], node['std'] = list(MEAN), list(STD)
            # Images that were turned from RGB to BGR are left as they come.
            came_as_rgb = node.pop('rgb_to_bgr', False)
            node['to_rgb' if 'to_rgb' in node else 'bgr_to_rgb'] = not came_as_rgb


def _necks(host: Mapping[str, Any]) -> list[ConfigDict]:
    neck = host.get('neck') or []
    return [neck] if isinstance(neck, dict) else list(neck)


def _name(component: Mapping[str, Any]) -> str:
    """The type of a component without its scope; '' if it has none."""
    kind = component.get('type', '')
    return kind.__name__ if inspect.isclass(kind) else str(kind).rpartition('.')[2]


def _is_pretrained(init_cfg: Any) -> bool:
    return any(node.get('type') == 'Pretrained' for node in dicts(init_cfg))

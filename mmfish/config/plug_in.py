"""FishNet into anybody's config: `plug_in`.

The old backbone and FishNet run on torch's meta device, which shows the channels and strides of
their levels. `_set_neck_channels` then gives FishNet's channels to whatever reads the old ones: the
FPN, another neck, or the heads. `SPECIAL` has the few components that need more than that.
"""

import copy
import difflib
import itertools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import Registry
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfish.checkpoints.loading import OFFICIAL, missing_release
from mmfish.config.levels import (
    APART,
    Levels,
    fishnet_on_meta,
    hosts,
    levels_of,
    levels_read,
    model_registry,
    necks_of,
)
from mmfish.config.paths import dicts, read_config
from mmfish.errors import UsageError
from mmfish.models import FishNet
from mmfish.registry import component, pretrained_cfg, type_name

# The public weights to start from, by arch. The authors' own may have to be downloaded by hand.
WEIGHTS = dict(
    fishnet99='official://fishnet99',
    fishnet150='pytorchcv://fishnet150',
    fishnet201='official://fishnet201',
)
# The images that all published weights of FishNet were trained on: ImageNet's statistics, RGB.
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]

# Components, wherever they stand in a model, that need more than FishNet's channels. 'project': its
# channels are fixed, so FishNet's levels are brought to the old widths. 'pass': it has no channels
# of its own, and what comes after it reads FishNet's. A sentence: why FishNet cannot go in.
SPECIAL = dict(
    ResLayer='project',
    GlobalAveragePooling='pass',
    TridentResNet='its branches with different dilations are the detector itself (trident blocks)',
    RFP='its neck runs the backbone again and feeds its own outputs into it, for which it needs a '
    'DetectoRS_ResNet (recursive feature pyramid)',
)
# Options that change the layers of a ResNet, and that FishNet does not have.
LOST = ('dcn', 'plugins', 'conv_cfg', 'sac')


def plug_in(
    cfg: Config | str | os.PathLike,
    arch: str | Mapping[str, Any] = 'fishnet150',
    **backbone_options: Any,
) -> Config:
    """Put FishNet in the place of the ResNet-like backbone of any config of MMDetection.

    The levels stay the same (``out_indices``), and so do ``norm_cfg``, ``with_cp`` and
    ``in_channels``. Necks, or heads where there is no neck, get FishNet's channels. Where their
    channels cannot be set, a `FishHeadAdapter` brings FishNet's levels to the old ones. Images are
    normalised as FishNet's weights expect, with ImageNet's mean and standard deviation in RGB. A
    checkpoint of the whole detector, in ``init_cfg``, is left out. Optimiser, schedule and data
    stay as they are.

    ``frozen_stages`` and ``norm_eval`` stay too where FishNet starts from weights. Where it starts
    from random numbers they become -1 and False, and norm layers that learn nothing (``FrozenBN``,
    ``requires_grad=False``) become BatchNorm that learns. The log says what was changed, and why.

    Args:
        cfg: a config, its path, or ``mmdet::<path>``. It is not changed.
        arch: FishNet's ``arch``. Defaults to 'fishnet150', which starts from pytorchcv's weights.
            'fishnet99' and 'fishnet201' start from the authors' where their file is in torch's
            download folder. Others, and options that the weights do not fit (GroupNorm, for
            example), start from random numbers.
        **backbone_options: further options of `FishNet`. None of them is changed. ``init_cfg``
            takes the place of the public weights.

    Returns:
        A new config.

    Raises:
        UsageError: the config has no ResNet-like backbone, FishNet has no levels of the strides
            that it needs, or FishNet does not take the options. The message says which and why.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else read_config(cfg)
    models = hosts(cfg)
    with model_registry(cfg) as registry:
        with_resnet = {
            name: chain for name, chain in models.items() if has_resnet(chain[-1], registry)
        }
        for name, chain in with_resnet.items():
            _plug_into(name, chain[-1], registry, arch, backbone_options)
    if not with_resnet:
        raise UsageError(
            f'{cfg.filename or "the config"} has no ResNet-like backbone that FishNet could take '
            f'the place of: expected one in model, or in its detector, and found '
            f'{", ".join(type_name(chain[-1].backbone) for chain in models.values()) or "none"}'
        )
    cfg.pop('expected_metrics', None)  # of the config's own backbone
    _normalise_as_imagenet(cfg.get('data_preprocessor'))
    for model in itertools.chain(*with_resnet.values()):
        _normalise_as_imagenet(model.get('data_preprocessor'))
        if pretrained_cfg(model.get('init_cfg')) is not None:
            # It would overwrite the initialisation of every part.
            del model.init_cfg
        # MMSegmentation's way to name the weights that the backbone starts from.
        model.pop('pretrained', None)
    return cfg


def config_diff(before: str, after: str, name: str = 'before') -> str:
    """What changed between the texts (``Config.pretty_text``) of two configs, as a unified diff."""
    texts = [text.splitlines() for text in (before, after)]
    return '\n'.join(difflib.unified_diff(*texts, name, 'with the options', lineterm=''))


def has_resnet(host: Mapping[str, Any], registry: Registry) -> bool:
    """Whether a model in a config has a backbone that FishNet could take the place of."""
    kind = component(host['backbone'].get('type'), registry)
    # By name, for MMDetection's ResNet, MMPretrain's, and classes derived from either.
    return 'ResNet' in (base.__name__ for base in getattr(kind, '__mro__', ()))


def _plug_into(
    name: str,
    host: ConfigDict,
    registry: Registry,
    arch: str | Mapping,
    backbone_options: Mapping[str, Any],
) -> None:
    """Give FishNet to one of a config's models; its dotted name is for the log."""
    backbone = host.backbone
    parts = {key: part for key, part in host.items() if key not in APART}
    special = {kind: SPECIAL[kind] for kind in map(type_name, dicts(parts)) if kind in SPECIAL}
    for kind, reason in special.items():
        if reason not in ('project', 'pass'):
            raise UsageError(f'FishNet cannot go into a model with {kind}: {reason}')

    old, old_levels = _old_backbone(registry, backbone)
    lost = [option for option in LOST if backbone.get(option)]
    if lost:
        _log(
            f'{name}.backbone: the {type_name(backbone)} of this config has {", ".join(lost)}, '
            'which FishNet does not have: left out'
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
    fish = fishnet_on_meta({**options, 'norm_cfg': None})
    levels = levels_of(fish, options['in_channels'])
    _check_strides(
        f'{type_name(backbone)} has at out_indices={old.out_indices}', old_levels, options, levels
    )
    if 'norm_cfg' not in backbone_options:
        _fit_groups(name, options, fish, registry)
    fish = fishnet_on_meta(options)  # with its norm layers
    reason = 'its init_cfg names none'
    if 'init_cfg' not in backbone_options:
        reason = _why_no_public_weights(options, fish)
        if not reason:
            options['init_cfg'] = dict(type='Pretrained', checkpoint=WEIGHTS[arch])
    if pretrained_cfg(options.get('init_cfg')) is None:
        _train_from_random_weights(name, options, backbone_options, fish, registry, reason)
    elif options['frozen_stages'] == 4 and 'frozen_stages' not in backbone_options:
        # All of a ResNet; of a fish only what comes before the body.
        options['frozen_stages'] = 3 * len(fish.tail) + 1

    host.backbone = ConfigDict(type='mmfish.FishNet', **options)
    if options.get('init_cfg') is None:
        host.backbone.pop('init_cfg', None)
    if 'project' in special.values() or not _set_neck_channels(
        host, old_levels.channels, levels.channels
    ):
        host.neck = [_adapter(levels, old_levels, host, registry), *necks_of(host)]


def _old_backbone(registry: Registry, backbone: ConfigDict) -> tuple[nn.Module, Levels]:
    """The old backbone on the meta device, without what does not change its levels."""
    left_out = (*LOST, 'output_img', 'init_cfg', 'pretrained')
    plain = {key: value for key, value in backbone.items() if key not in left_out}
    plain['norm_cfg'] = dict(type='BN')
    # Built on the CPU first: some compute rates of stochastic depth with tensors.
    try:
        net = registry.build(plain).to('meta')
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise UsageError(
            f'the {type_name(backbone)} that FishNet would take the place of cannot be built '
            f'itself: {type(error).__name__} {error}'
        ) from error
    return net, levels_of(net, backbone.get('in_channels', 3))


def _check_strides(old_has: str, old: Levels, options: Mapping[str, Any], new: Levels) -> None:
    if old.strides == new.strides:
        return
    all_levels = fishnet_on_meta({**options, 'norm_cfg': None, 'out_indices': None})
    all_strides = levels_of(all_levels, options['in_channels']).strides
    hint = ''
    if set(old.strides) <= set(all_strides) and len(set(old.strides)) == len(old.strides):
        out_indices = tuple(all_strides.index(stride) for stride in old.strides)
        hint = f': pass out_indices={out_indices} to take the levels of those strides instead'
    raise UsageError(
        f'the rest of this model is made for levels of strides {old.strides}, which its '
        f"{old_has}, and FishNet's at out_indices={tuple(options['out_indices'])} have "
        f'{new.strides}{hint}'
    )


def _fit_groups(name: str, options: dict[str, Any], fish: FishNet, registry: Registry) -> None:
    """Give GroupNorm a number of groups that divides the channels of all of FishNet's layers."""
    norm_cfg = options['norm_cfg']
    if component(norm_cfg.get('type'), registry) is not nn.GroupNorm:
        return
    groups = norm_cfg.get('num_groups', 32)
    fitting = _common_groups(fish, groups)
    if fitting != groups:
        _log(
            f'{name}.backbone: GroupNorm has {fitting} groups instead of {groups}, which do not '
            "divide FishNet's channels"
        )
    options['norm_cfg'] = {**norm_cfg, 'num_groups': fitting}


def _common_groups(fish: FishNet, most: int) -> int:
    """The largest divisor of ``most`` that divides the channels of every BatchNorm layer."""
    channels = [m.num_features for m in fish.modules() if isinstance(m, _BatchNorm)]
    return math.gcd(most, *channels)


def _why_no_public_weights(options: Mapping[str, Any], fish: FishNet) -> str:
    """Why FishNet with these options has no public weights to start from; '' if it has."""
    arch = options['arch']
    if not isinstance(arch, str) or arch not in WEIGHTS:
        what = arch if isinstance(arch, str) else 'this arch'
        return f'there are public weights of {", ".join(WEIGHTS)} only, not of {what}'
    published = fishnet_on_meta(dict(arch=arch, out_indices=options['out_indices']))
    if _shapes(fish) != _shapes(published):
        return f'the public weights of {arch} do not fit these options'
    if WEIGHTS[arch].startswith(OFFICIAL) and (advice := missing_release(WEIGHTS[arch])):
        return f'the public weights of {arch} are not on this machine ({advice})'
    return ''


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    state_dict = net.state_dict()
    return {key: t.shape for key, t in state_dict.items() if 'num_batches_tracked' not in key}


def _train_from_random_weights(
    name: str,
    options: dict[str, Any],
    given: Mapping[str, Any],
    fish: FishNet,
    registry: Registry,
    reason: str,
) -> None:
    """Train what the config keeps fixed because of its pretrained weights, and log the changes.

    Options that the caller of `plug_in` has given stay. The reason says why there are no weights.
    """
    norm_cfg = dict(options['norm_cfg'] or dict(type='BN'))
    if any(key.endswith('weight') for key, _ in fish.named_buffers()):
        norm_cfg['type'] = 'BN'  # the weight of a FrozenBN, of any package, is no parameter
    if not norm_cfg.get('requires_grad', True):
        norm_cfg['requires_grad'] = True
    trained = dict(frozen_stages=-1, norm_eval=False, norm_cfg=norm_cfg)
    changed = {k: v for k, v in trained.items() if k not in given and options[k] != v}
    sentences = [
        f'{name}.backbone: FishNet starts from random weights, because {reason}; '
        'plug_in(cfg, init_cfg=...) takes weights of your own.'
    ]
    if changed:
        changes = ', '.join(f'{k}={v!r} instead of {options[k]!r}' for k, v in changed.items())
        sentences.append(f'So that all of it learns, it gets {changes}.')
    options.update(changed)
    if component((options['norm_cfg'] or norm_cfg)['type'], registry) is nn.BatchNorm2d:
        option = f'{name}.backbone.norm_cfg'
        groups = _common_groups(fish, 32)
        sentences.append(
            'BatchNorm learns badly from one or two images per GPU. Use SyncBN (--cfg-options '
            f'{option}.type=SyncBN) or GroupNorm (--cfg-options {option}.type=GN '
            f'{option}.num_groups={groups}) there.'
        )
    _log(' '.join(sentences))


def _adapter(
    levels: Levels, old_levels: Levels, host: Mapping[str, Any], registry: Registry
) -> ConfigDict:
    """A `FishHeadAdapter` that gives the levels that a neck reads the channels of the old ones."""
    adapter = ConfigDict(
        type='mmfish.FishHeadAdapter',
        in_channels=list(levels.channels),
        out_channels=list(old_levels.channels),
    )
    necks = necks_of(host)
    read = levels_read(necks, old_levels, registry) if necks else None
    if read and read.start > 0:
        adapter.start_level = read.start
    if read and read.stop < len(levels.channels):
        adapter.end_level = read.stop - 1
    return adapter


def _set_neck_channels(host: ConfigDict, old: Sequence[int], new: Sequence[int]) -> bool:
    """Give FishNet's channels to the neck, or to the heads where there is no neck.

    Returns:
        Whether there were any to set.
    """
    for neck in necks_of(host):
        if SPECIAL.get(type_name(neck)) != 'pass':
            return _replace_channels(neck, old, new)
    heads = [host[key] for key in host if key not in ('backbone', 'neck', *APART)]
    return any([_replace_channels(head, old, new) for head in heads])


def _replace_channels(node: Any, old: Sequence[int], new: Sequence[int]) -> bool:
    """Replace ``in_channels`` anywhere in a component: lists of them, and those of one level."""
    if isinstance(node, (list, tuple)):
        return any([_replace_channels(part, old, new) for part in node])
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
            found |= _replace_channels(value, old, new)
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


def _log(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)

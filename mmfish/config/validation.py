"""Checks of a config that need no data: its version, and whether its channels fit each other."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS, MODELS, Registry
from torch import Tensor, nn

from mmfish.config.levels import (
    Levels,
    fishnet_on_meta,
    hosts,
    levels_of,
    levels_read,
    model_registry,
    necks_of,
)
from mmfish.errors import ConfigError
from mmfish.models import FishHeadAdapter, FishNet
from mmfish.registry import component


def validate_config(cfg: Config) -> None:
    """Check a config before its runner is built.

    Every FishNet and its necks run on the meta device, to see whether they fit each other. Necks
    that do not run there, and what comes after them, are not checked.

    Args:
        cfg: complete, as `mmfish.engine.run.load_config` returns it.

    Raises:
        ConfigError: it is for MMDetection 2.x or has no model; FishNet's arguments are wrong, or
            its channels are not those that neck or head expect; or an adapter has parameters that
            several ranks cannot train.
    """
    if 'data' in cfg and 'train_dataloader' not in cfg:
        raise ConfigError(
            'the config is for MMDetection 2.x: it has data, where 3.x expects train_dataloader, '
            'val_dataloader and test_dataloader; start from a config of MMDetection 3.x, or '
            "convert it as the migration guide in MMDetection's documentation says"
        )
    if not isinstance(cfg.get('model'), dict):
        raise ConfigError("the config has no model: expected model=dict(type='...', ...)")
    all_used = _all_parameters_used(cfg)
    with model_registry(cfg) as registry:
        for name, (*_, host) in hosts(cfg).items():
            if is_fishnet(host.backbone):
                _check_model(name, host, registry, all_used=all_used)


def is_fishnet(backbone: Any, scope: str | None = None) -> bool:
    """Whether a backbone in a config is FishNet or a class derived from it.

    Args:
        backbone: its part of the config.
        scope: the config's ``default_scope``. Defaults to the current one.
    """
    if not isinstance(backbone, dict):
        return False
    kind = component(backbone.get('type'), MODELS, scope)
    return inspect.isclass(kind) and issubclass(kind, FishNet)


def _all_parameters_used(cfg: Config) -> bool:
    """Whether a run stops at parameters without a gradient: several ranks under MMEngine's DDP."""
    wrapper = cfg.get('model_wrapper_cfg') or {}
    kind = component(
        wrapper.get('type', 'MMDistributedDataParallel'), MODEL_WRAPPERS, cfg.get('default_scope')
    )
    return (
        cfg.get('launcher', 'none') != 'none'
        and kind is MMDistributedDataParallel
        and not cfg.get('find_unused_parameters')
        and not wrapper.get('find_unused_parameters')
    )


def _check_model(
    name: str, model: Mapping[str, Any], registry: Registry, *, all_used: bool
) -> None:
    """Check one model of a config.

    Args:
        name: its dotted name, for the message.
        model: its part of the config.
        registry: which its parts are built from.
        all_used: whether every parameter has to get a gradient.
    """
    try:
        fish = fishnet_on_meta(model['backbone'], component(model['backbone']['type'], registry))
    except ConfigError as error:
        raise ConfigError(f'{name}.backbone: {error}') from error
    arch = fish.arch if isinstance(fish.arch, str) else 'a dict'
    source = f'FishNet with arch={arch} and out_indices={fish.out_indices}'
    levels = levels_of(fish, fish.in_channels).tensors()
    necks = necks_of(model)
    for i, neck in enumerate(necks):
        # A name that --cfg-options takes.
        place = f'{name}.neck' if isinstance(model['neck'], dict) else f'{name}.neck.{i}'
        try:
            with torch.device('meta'):
                module = registry.build(copy.deepcopy(neck))
        except Exception:  # of any package's neck; the runner will raise it again
            return
        outputs = _run(module, levels)
        if outputs is None:
            expected = neck.get('in_channels', getattr(module, 'in_channels', None))
            if _takes(module, expected, levels):
                raise ConfigError(
                    f'{place} of type {type(module).__name__} expects in_channels={expected}, and '
                    f'{source} has levels of {[level.shape[1] for level in levels]} channels: set '
                    f"{place}.in_channels to these, or the backbone's out_indices to levels that "
                    'fit'
                )
            return
        if all_used and isinstance(module, FishHeadAdapter):
            read = levels_read(necks[i + 1 :], Levels.of(outputs), registry)
            _check_adapter(place, module, read)
        levels, source = outputs, place
    head = model.get('head')
    expected = head.get('in_channels') if isinstance(head, dict) else None
    channels = levels[-1].shape[1]
    if isinstance(expected, int) and expected != channels:
        raise ConfigError(
            f'{name}.head of type {head.get("type")} expects in_channels={expected}, and the last '
            f'level of {source} has {channels} channels: set {name}.head.in_channels to that'
        )


def _run(neck: nn.Module, levels: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """What a neck returns; None if it does not take these levels, or does not run."""
    try:
        with torch.no_grad():
            outputs = neck(tuple(levels))
    except Exception:  # of any package's neck
        return None
    tensors = isinstance(outputs, list | tuple) and all(isinstance(x, Tensor) for x in outputs)
    return outputs if tensors and outputs else None


def _takes(neck: nn.Module, channels: Any, levels: Sequence[Tensor]) -> bool:
    """Whether a neck that does not take these levels would take some with other channels."""
    channels = [channels] * len(levels) if isinstance(channels, int) else channels
    if not isinstance(channels, list | tuple) or not all(isinstance(c, int) for c in channels):
        return False
    size = levels[0].shape[-1]
    others = [
        torch.empty(2, c, size >> i, size >> i, device='meta') for i, c in enumerate(channels)
    ]
    return _run(neck, others) is not None


def _check_adapter(place: str, adapter: FishHeadAdapter, read: range | None) -> None:
    if read is None:
        return
    trained = [
        i
        for i, level in enumerate(adapter.levels)
        if any(p.requires_grad for p in level.parameters())
    ]
    unused = [i for i in trained if i not in read]
    if unused:
        raise ConfigError(
            f'{place} of type FishHeadAdapter has parameters for the levels {unused}, which the '
            'next neck does not read, and DistributedDataParallel stops at parameters without a '
            f'gradient: set {place}.start_level={read.start} and {place}.end_level={read.stop - 1}'
        )

"""What can be said about a config without data: its version, and channels that fit."""

from typing import Any

import torch
from mmengine.config import Config

from mmfish.config.paths import dicts
from mmfish.errors import ConfigError
from mmfish.models import FishNet

# Settings of MMDetection 2.x with what took their place in 3.x.
OLD_SETTINGS = dict(
    data='train_dataloader, val_dataloader and test_dataloader',
    runner='train_cfg',
    total_epochs='train_cfg',
    optimizer_config='optim_wrapper',
    lr_config='param_scheduler',
    evaluation='val_evaluator and val_cfg',
    checkpoint_config='default_hooks',
    img_norm_cfg='model.data_preprocessor',
)


def validate_config(cfg: Config) -> None:
    """Check a config before its runner is built.

    Args:
        cfg: complete, as `mmfish.engine.run.load_config` returns it.

    Raises:
        ConfigError: it is for MMDetection 2.x or has no model, FishNet's arguments are wrong, or
            its channels are not those that neck or head expect.
    """
    old = [key for key in OLD_SETTINGS if key in cfg]
    if 'train_dataloader' not in cfg and ('data' in old or len(old) > 1):
        raise ConfigError(
            f'the config is for MMDetection 2.x: it has {", ".join(old)}, where 3.x expects '
            f'{OLD_SETTINGS[old[0]]}; start from a config of MMDetection 3.x, or convert it as '
            "the migration guide in MMDetection's documentation says"
        )
    if not isinstance(cfg.get('model'), dict):
        raise ConfigError("the config has no model: expected model=dict(type='...', ...)")
    _check_channels(cfg)
    for split in ('val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if any(
            'LoadImageFromFile' in str(step.get('type')) and step.get('ignore_empty')
            for step in dicts(loader.get('dataset'))
        ):
            raise ConfigError(
                f'{split}_dataloader has ignore_empty=True in LoadImageFromFile: an evaluation '
                'needs every image; set it in the train_pipeline only'
            )


def is_fishnet(backbone: Any) -> bool:
    """Whether a backbone in a config is FishNet, under either of its names."""
    return isinstance(backbone, dict) and backbone.get('type') in ('FishNet', 'mmfish.FishNet')


def _check_channels(cfg: Config) -> None:
    model = cfg.model
    backbone = model.get('backbone')
    if not is_fishnet(backbone):
        return
    options = {key: value for key, value in backbone.items() if key not in ('type', 'init_cfg')}
    try:
        with torch.device('meta'):
            fish = FishNet(**options)
    except TypeError as error:
        raise ConfigError(f'model.backbone of type FishNet: {error}') from error
    channels = fish.out_channels
    necks = model.get('neck') or []
    for neck in necks if isinstance(necks, list) else [necks]:
        expected = neck.get('in_channels')
        if isinstance(expected, list | tuple):
            if tuple(expected) != channels:
                arch = fish.arch if isinstance(fish.arch, str) else 'a dict'
                raise ConfigError(
                    f'model.neck of type {neck.get("type")} expects in_channels={list(expected)}, '
                    f'and FishNet with arch={arch} and out_indices={fish.out_indices} has levels '
                    f'of {list(channels)} channels: set '
                    'model.neck.in_channels to these, or out_indices to levels that fit'
                )
            return
    head = model.get('head')
    expected = head.get('in_channels') if isinstance(head, dict) else None
    if isinstance(expected, int) and expected != channels[-1]:
        raise ConfigError(
            f'model.head of type {head.get("type")} expects in_channels={expected}, and the last '
            f'level of FishNet has {channels[-1]} channels: set model.head.in_channels to that'
        )

"""Detectors of MMDetection's zoo, made small, with random weights and a checkpoint."""

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint

from mmfish import plug_in
from mmfish.config.paths import dicts, read_config

CLASSES = ('circle', 'square', 'triangle')
SMALLER = {
    **dict.fromkeys(('in_channels', 'out_channels', 'feat_channels', 'conv_out_channels'), 64),
    'fc_out_channels': 64,
    'stacked_convs': 1,
    'num_convs': 1,
}


def tiny_config(config: str, backbone: str) -> Config:
    """A config of MMDetection with thin layers, three classes and small images.

    Args:
        config: its path in MMDetection's ``configs``.
        backbone: an arch of FishNet, or 'resnet18'.
    """
    cfg = read_config(f'mmdet::{config}')
    for part in dicts({k: v for k, v in cfg.model.items() if k != 'backbone'}):
        for name, value in SMALLER.items():
            if isinstance(part.get(name), int):
                part[name] = value
        if part.get('num_classes') == 80:
            part['num_classes'] = len(CLASSES)
    if backbone == 'resnet18':
        cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
        cfg.model.neck.in_channels = [8, 16, 32, 64]
    else:
        cfg = plug_in(cfg, backbone)
    cfg.test_dataloader.dataset.pipeline[1].scale = (160, 128)
    # All that is found, so that random weights find something.
    found = cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg)
    found.update(score_thr=0.0, max_per_img=10)
    return cfg


def save_model(cfg: Config, file: Path) -> str:
    """Build the model of a config, and save it as MMEngine's runner does.

    Returns:
        The path of the checkpoint, which has the config in it.
    """
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=meta), str(file))
    return str(file)

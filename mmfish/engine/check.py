"""The second step of a run: every check of a config, its files and its data.

The checks change nothing. A failure ends the run, most before MMEngine has spent a minute on
reading annotations and building. Weights are read and checked only for FishNet; for other models a
missing file is reported, and the rest is left to MMEngine.
"""

import re
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmfish.checkpoints.loading import check_numbers, load_backbone_state, read_state_dict
from mmfish.config.levels import hosts
from mmfish.config.validation import is_fishnet, validate_config
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.layouts import check_data
from mmfish.datasets.summary import summary
from mmfish.errors import CheckpointError, ConfigError, DataError
from mmfish.models import FishNet
from mmfish.registry import pretrained_cfg
from mmfish.stack import first_rank


def check_training(cfg: Config) -> None:
    """Check all that a training starts from.

    Args:
        cfg: from `mmfish.engine.prepare.prepare_training`.

    Raises:
        ConfigError: the config is not for this version, or its parts do not fit each other.
        DataError: the data set holds what cannot be used; MissingDataError: it is not all there.
        CheckpointError: a file with weights is not there, or cannot be used.
    """
    validate_config(cfg)
    check_fsdp_checkpoints(cfg)
    check_data(cfg, ('train', 'val'))
    check_weights(cfg)
    contents = check_annotation_files(cfg, ('train', 'val'))
    if contents and first_rank():
        print_log(f'\n\n{summary(contents)}\n', 'current')


def check_testing(cfg: Config) -> None:
    """Check all that testing starts from, as `check_training` does."""
    validate_config(cfg)
    check_data(cfg, ('test',))
    check_weights(cfg, pretrained=False)
    check_annotation_files(cfg, ('test',))


def check_fsdp_checkpoints(cfg: Config) -> None:
    """Refuse a training with FSDP on the CPU that would crash when it saves its first checkpoint.

    ``state_dict_cfg='full'`` of MMEngine's ``FSDPStrategy`` sets torch's ``offload_to_cpu``. Then
    torch 2.11 frees gathered weights that are on the CPU before it copies them, and the process
    ends with SIGSEGV. It does so without MMEngine and mmfish, too.

    Args:
        cfg: of a training.

    Raises:
        ConfigError: the config asks for that.
    """
    strategy = cfg.get('strategy') or {}
    device = (strategy.get('model_wrapper') or {}).get('device_id')
    on_cpu = not torch.cuda.is_available() or str(device).startswith('cpu')
    wanted = strategy.get('state_dict_cfg')
    if isinstance(wanted, dict):
        offloaded = (wanted.get('state_dict_config') or {}).get('offload_to_cpu')
    else:
        offloaded = wanted == 'full'
    if on_cpu and offloaded:
        raise ConfigError(
            f'strategy.state_dict_cfg={wanted!r} makes PyTorch crash on the CPU when a checkpoint '
            "is saved: use 'local' (a file for each rank), or for one file "
            "dict(state_dict_type='FULL_STATE_DICT', "
            "state_dict_config=dict(type='FullStateDictConfig', rank0_only=True), "
            "optim_state_dict_config=dict(type='FullOptimStateDictConfig', rank0_only=True))"
        )


def check_weights(cfg: Config, *, pretrained: bool = True) -> None:
    """Check that files with weights are there, and that FishNet's can be read and are numbers.

    The run reads these files again. That costs seconds, but otherwise a bad file would be found
    only after the annotations have been read, which takes a minute for COCO.

    Args:
        cfg: any config.
        pretrained: whether the backbone will be initialised.

    Raises:
        CheckpointError: a file is not there, cannot be read, or has NaN or Inf in it.
    """
    with_fishnet = False
    for name, (*_, host) in hosts(cfg).items():
        fishnet = is_fishnet(host.backbone, cfg.get('default_scope'))
        with_fishnet |= fishnet
        checkpoint = (pretrained_cfg(host.backbone.get('init_cfg')) or {}).get('checkpoint')
        if pretrained and checkpoint:
            _check_file(
                checkpoint,
                f'train that classifier first, or name another file with --cfg-options '
                f'{name}.backbone.init_cfg.checkpoint=FILE, or start from random weights with '
                f'{name}.backbone.init_cfg=None',
            )
            if fishnet:
                check_numbers(load_backbone_state(checkpoint), checkpoint)
    checkpoint = cfg.get('load_from')
    # What is resumed from has been checked when it was chosen, and may be a folder.
    if checkpoint and not cfg.get('resume'):
        _check_file(checkpoint, 'give the path of a checkpoint')
        if with_fishnet:
            check_numbers(read_state_dict(checkpoint), checkpoint)


def check_classes(runner: Runner) -> None:
    """Check that the data set is not empty, and that FishNet's heads have enough classes for it.

    Args:
        runner: its training data set is built here if it has not been yet.

    Raises:
        DataError: the data set is empty.
        ConfigError: a head has fewer classes than the data set.
    """
    try:
        dataset = runner.train_dataloader.dataset
    except ValueError as error:
        # NumPy cannot join the images of a data set that has none.
        if 'at least one array' not in str(error):
            raise
        raise DataError(
            'there is nothing to train on: the data set has no image with an annotation that '
            'its filter_cfg leaves; look at the warnings above, its ann_file and its filter_cfg'
        ) from error
    classes = getattr(dataset, 'metainfo', {}).get('classes') or ()
    if not isinstance(runner.model, nn.Module):
        return  # MMEngine's FlexibleRunner builds it later
    modules = dict(runner.model.named_modules())
    if not any(isinstance(module, FishNet) for module in modules.values()):
        return  # other models are MMDetection's to judge
    if any(name.endswith('language_model') for name in modules):
        return  # the heads of GLIP and Grounding DINO compare boxes with words, of any number
    for name, module in modules.items():
        known = getattr(module, 'num_classes', None)
        # RPNs and mask heads may treat all classes alike.
        if re.search(r'\bbbox_head(\.\d+)?$', name) and known and known < len(classes):
            raise ConfigError(
                f'model.{name.removeprefix("module.")} has num_classes={known}, and the data set '
                f'has {len(classes)} classes: set num_classes of each head to that, or fewer '
                'classes in metainfo of the data set'
            )


def _check_file(checkpoint: str, advice: str) -> None:
    if '://' not in str(checkpoint) and not Path(str(checkpoint)).expanduser().is_file():
        raise CheckpointError(f'there is no file {checkpoint} to take weights from: {advice}')

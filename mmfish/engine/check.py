"""The second step of a run: every check of a config and its files, before anything is built.

The checks change nothing. A failure ends the run before MMEngine has spent a minute on reading
annotations and building. Weights are read and checked only for FishNet; for other models a missing
file is reported, and the rest is left to MMEngine.
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mmfish.checkpoints.loading import check_numbers, load_backbone_state, read_state_dict
from mmfish.config.levels import hosts
from mmfish.config.validation import is_fishnet, validate_config
from mmfish.datasets.annotations import check_annotation_files
from mmfish.datasets.layouts import check_data
from mmfish.datasets.summary import summary
from mmfish.engine.fault_tolerance.saving import check_fsdp_checkpoints
from mmfish.errors import CheckpointError
from mmfish.registry import pretrained_cfg
from mmfish.stack import first_rank


def check_training(cfg: Config) -> None:
    """Check all that a training starts from.

    Args:
        cfg: from `mmfish.engine.prepare.prepare_training`.

    Raises:
        ConfigError: the config is not for this version, or its parts do not fit each other.
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be trained on.
        CheckpointError: a file with weights is not there, or cannot be used.
    """
    validate_config(cfg)
    check_checkpoint_files(cfg)
    check_fsdp_checkpoints(cfg)
    check_data(cfg, ('train', 'val'))
    check_weights(cfg)
    contents = check_annotation_files(cfg, ('train', 'val'))
    if contents and first_rank():
        print_log(f'\n\n{summary(contents)}\n', 'current')


def check_testing(cfg: Config) -> None:
    """Check all that testing starts from.

    Args:
        cfg: from `mmfish.engine.prepare.prepare_testing`.

    Raises:
        ConfigError: the config is not for this version, or its parts do not fit each other.
        MissingDataError: the data set is not there, or not whole.
        DataError: the data set holds what cannot be tested on.
        CheckpointError: the checkpoint is not there, or cannot be used.
    """
    validate_config(cfg)
    check_file(cfg.load_from)
    check_data(cfg, ('test',))
    check_weights(cfg, pretrained=False)
    check_annotation_files(cfg, ('test',))


def check_checkpoint_files(cfg: Config) -> None:
    """Check that the files are there whose weights a training starts from.

    Args:
        cfg: any config.

    Raises:
        CheckpointError: names the file, and what to do.
    """
    for name, (*_, host) in hosts(cfg).items():
        checkpoint = _pretrained(host.backbone)
        if checkpoint and '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
            raise CheckpointError(
                f'{name}.backbone starts from {checkpoint}, and there is no such file: train that '
                f'classifier first, or name another file with --cfg-options '
                f'{name}.backbone.init_cfg.checkpoint=FILE, or start from random weights with '
                f'{name}.backbone.init_cfg=None'
            )
    # What is resumed from has been checked when it was chosen, and may be a folder.
    if cfg.get('load_from') and not cfg.get('resume'):
        check_file(cfg.load_from)


def check_file(checkpoint: str) -> None:
    """Check that a checkpoint is there, if it is a local one.

    Args:
        checkpoint: path or URL.

    Raises:
        CheckpointError: there is no such file.
    """
    if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        found = (
            'it is a folder' if Path(checkpoint).expanduser().is_dir() else 'there is no such file'
        )
        raise CheckpointError(f'{checkpoint} cannot be loaded: {found}; give that of a checkpoint')


def check_weights(cfg: Config, *, pretrained: bool = True) -> None:
    """Check that FishNet's weights can be read, and are ordinary numbers.

    The run reads these files again. That costs seconds, but otherwise a bad file would be found
    only after the annotations have been read, which takes a minute for COCO.

    Args:
        cfg: any config; without FishNet nothing is checked.
        pretrained: whether the backbone will be initialised.

    Raises:
        CheckpointError: a file cannot be read, or has NaN or Inf in it.
    """
    backbones = [host.backbone for *_, host in hosts(cfg).values()]
    fishnets = [b for b in backbones if is_fishnet(b, cfg.get('default_scope'))]
    for backbone in fishnets if pretrained else ():
        checkpoint = _pretrained(backbone)
        if checkpoint:
            check_numbers(load_backbone_state(checkpoint), checkpoint)
    if fishnets and cfg.get('load_from') and not cfg.get('resume'):
        check_numbers(read_state_dict(cfg.load_from), cfg.load_from)


def _pretrained(backbone: dict) -> str | None:
    checkpoint = (pretrained_cfg(backbone.get('init_cfg')) or {}).get('checkpoint')
    return checkpoint if isinstance(checkpoint, str) else None

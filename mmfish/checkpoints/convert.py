"""Files with weights, in our names or in the released ones."""

import hashlib
import os
from pathlib import Path

import torch

from mmfish.checkpoints.key_maps import OFFICIAL_ARCHS, find_arch, to_official
from mmfish.checkpoints.loading import check_numbers, in_our_names, read_bytes, read_state_dict
from mmfish.errors import UsageError


def convert_checkpoint(
    source: str,
    target: str | os.PathLike,
    *,
    backbone_only: bool = False,
    released_names: bool = False,
) -> dict[str, str]:
    """Write a classifier's weights, and nothing else, under our names or the released ones.

    Args:
        source: path or URL of a released file, a pytorchcv file or a classifier of ours, of
            FishNet-99, -150 or -201; or ``pytorchcv://fishnet150``.
        target: the file to write: ``dict(meta=..., state_dict=...)``.
        backbone_only: only the backbone, under the names that it has by itself.
        released_names: the names of the authors' release, without ``module.``.

    Returns:
        What is in ``meta``: ``source``, the ``names`` that it had ('official', 'pytorchcv' or
        'mmfish'), its ``sha256``, and the ``arch``.

    Raises:
        CheckpointError: the source cannot be read or is no whole FishNet classifier, or its
            numbers are none; then nothing was written.
        UsageError: both options at once, or there is no folder to write to.
    """
    if backbone_only and released_names:
        raise UsageError(
            'the released networks are classifiers, under whose names there is no backbone alone: '
            'choose one of --backbone-only and --released-names'
        )
    target = Path(target)
    if not target.parent.is_dir():
        raise UsageError(f'there is no folder {target.parent} to write {target.name} to: make it')
    state_dict, names = in_our_names(read_state_dict(source))
    arch = find_arch(state_dict, OFFICIAL_ARCHS, 'FishNet classifier')
    check_numbers(state_dict, source)
    meta = dict(
        source=source, names=names, sha256=hashlib.sha256(read_bytes(source)).hexdigest(), arch=arch
    )
    if released_names:
        state_dict = to_official(state_dict)
    elif backbone_only:
        state_dict = {
            key.removeprefix('backbone.'): tensor
            for key, tensor in state_dict.items()
            if key.startswith('backbone.')
        }
    # Beside its place first: whoever finds the file finds it whole.
    partial = target.with_name(f'{target.name}.part')
    torch.save(dict(meta=meta, state_dict=state_dict), partial)
    os.replace(partial, target)
    return meta

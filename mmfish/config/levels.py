"""The levels that a backbone returns and necks read, and where to find both in a config.

To find out the levels, the parts run on torch's meta device. It computes only shapes, needs no
memory for weights or images, and takes milliseconds.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, Registry
from torch import Tensor, nn

from mmfish.errors import ConfigError
from mmfish.models import FishNet

# Parts of a model that hold trained networks of their own, which stay as they are.
APART = ('reid', 'teacher_backbone', 'teacher_neck', 'teacher_bbox_head')
# Height and width of the images. Six levels, those of strides 4 to 128, have whole sizes.
IMAGE_SIZE = 128


@dataclass
class Levels:
    """What a backbone returns: channels and stride of each level."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> 'Levels':
        """The levels of an image of `IMAGE_SIZE`, each (N, C_i, H_i, W_i)."""
        return cls(
            tuple(level.shape[1] for level in tensors),
            tuple(IMAGE_SIZE // level.shape[-1] for level in tensors),
        )

    def tensors(self, device: str = 'meta') -> list[Tensor]:
        """Levels of two images, (2, C_i, IMAGE_SIZE / stride_i, IMAGE_SIZE / stride_i)."""
        return [
            torch.zeros(2, channels, IMAGE_SIZE // stride, IMAGE_SIZE // stride, device=device)
            for channels, stride in zip(self.channels, self.strides, strict=True)
        ]


def fishnet_on_meta(options: Mapping[str, Any], kind: type[FishNet] = FishNet) -> FishNet:
    """Build a FishNet on the meta device.

    Args:
        options: of FishNet; ``type`` and ``init_cfg`` are left out.
        kind: FishNet, or a class derived from it.

    Raises:
        ConfigError: FishNet does not take these options.
    """
    options = {key: value for key, value in options.items() if key not in ('type', 'init_cfg')}
    try:
        with torch.device('meta'):
            return kind(**options)
    except TypeError as error:
        raise ConfigError(f'FishNet cannot be built with these options: {error}') from error


def levels_of(backbone: nn.Module, in_channels: int = 3) -> Levels:
    """The levels of a backbone that is on the meta device.

    Args:
        backbone: put into eval mode, because some return nothing in training.
        in_channels: channels of its images. Defaults to 3.
    """
    backbone.eval()
    with torch.no_grad():
        return Levels.of(
            backbone(torch.empty(1, in_channels, IMAGE_SIZE, IMAGE_SIZE, device='meta'))
        )


def levels_read(
    necks: Sequence[Mapping[str, Any]], levels: Levels, registry: Registry
) -> range | None:
    """Which levels of its input a chain of necks reads.

    A level is read if it gets a gradient from what the last neck returns.

    Args:
        necks: configs of a chain of necks.
        levels: what the first of them gets.
        registry: which the necks are built from.

    Returns:
        From the first to the last level that is read; None where this cannot be found out, because
        the necks do not compute, or nothing gets a gradient.
    """
    # Some operators, such as deformable convolutions, do not run on the meta device.
    for device in ('meta', 'cpu'):
        inputs = [level.requires_grad_() for level in levels.tensors(device)]
        try:
            # Copies, because a neck may begin with an activation in place.
            outputs = tuple(level.clone() for level in inputs)
            with torch.device(device):
                for neck in necks:
                    outputs = registry.build(copy.deepcopy(neck))(outputs)
            total = sum(output.sum() for output in outputs)
            gradients = torch.autograd.grad(total, inputs, allow_unused=True)
        except Exception:  # of any package's neck
            continue
        read = [i for i, gradient in enumerate(gradients) if gradient is not None]
        return range(read[0], read[-1] + 1) if read else None
    return None


def model_registry(cfg: Config) -> AbstractContextManager[Registry]:
    """A context in which types are looked up as the config's ``default_scope`` says."""
    return MODELS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet')


def hosts(cfg: Config) -> dict[str, list[ConfigDict]]:
    """The models with a backbone in a config, such as ``model`` or ``model.detector``.

    Returns:
        For each of these models, by its dotted name, a list: the models around it, outermost first,
        and at the end the model itself.
    """

    def within(name: str, chain: list[ConfigDict]) -> Iterator[tuple[str, list[ConfigDict]]]:
        model = chain[-1]
        if isinstance(model.get('backbone'), dict):
            yield name, chain
        for key, part in model.items():
            if isinstance(part, dict) and key != 'backbone' and key not in APART:
                yield from within(f'{name}.{key}', [*chain, part])

    return dict(within('model', [cfg.get('model') or ConfigDict()]))


def necks_of(host: Mapping[str, Any]) -> list[ConfigDict]:
    """The necks of a model, in the order in which they compute; often one, or none."""
    neck = host.get('neck') or []
    return [neck] if isinstance(neck, dict) else list(neck)

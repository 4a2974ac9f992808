"""What the configs name beside the components of mmfish: a hook that looks, an initialisation."""

from collections.abc import Sequence

import torch
from mmdet.models.backbones.resnet import Bottleneck as ResNetBottleneck
from mmengine.hooks import Hook
from mmengine.model import initialize
from mmengine.registry import HOOKS, WEIGHT_INITIALIZERS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmfish.models.fishnet import Bottleneck, default_init_cfg

# Iterations that are over when the scale of the levels is logged.
LOOKED_AT = (0, 100)


@HOOKS.register_module()
class LevelScaleHook(Hook):
    """Log the standard deviation of each level of the backbone at `LOOKED_AT`."""

    def before_train(self, runner: Runner) -> None:
        """Have the backbone tell its levels.

        Args:
            runner: with a detector.
        """

        def log(backbone: nn.Module, images: object, levels: Sequence[Tensor]) -> None:
            if backbone.training and runner.iter in LOOKED_AT:
                for i, level in enumerate(levels):
                    runner.message_hub.update_scalar(f'train/level{i}_scale', level.std().item())

        runner.model.backbone.register_forward_hook(log)


@WEIGHT_INITIALIZERS.register_module()
class ZeroResidualInit:
    """MMDetection's initialisation of a ResNet with ``zero_init_residual``, for its ResNeXt.

    There the option, although it is on, does nothing: it looks for the block of ResNet itself.
    """

    def __call__(self, module: nn.Module) -> None:
        """Initialise a ResNet or a ResNeXt.

        Args:
            module: changed in place.
        """
        initialize(module, default_init_cfg())
        for block in module.modules():
            if isinstance(block, ResNetBottleneck):
                nn.init.zeros_(block.norm3.weight)


@WEIGHT_INITIALIZERS.register_module()
class DepthScaledInit:
    """FishNet's own initialisation, with the last convolution of each block scaled by its depth.

    With L blocks its weights are divided by sqrt(L), so that the sum of all residual branches has
    the variance of one.
    """

    def __call__(self, module: nn.Module) -> None:
        """Initialise a FishNet.

        Args:
            module: changed in place.
        """
        initialize(module, default_init_cfg())
        blocks = [block for block in module.modules() if isinstance(block, Bottleneck)]
        with torch.no_grad():
            for block in blocks:
                block.conv3.weight /= len(blocks) ** 0.5

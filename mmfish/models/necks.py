"""Between FishNet and whatever reads its levels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.necks import FPN
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfish.models.fishnet import FishNet, norm, reduce_channels
from mmfish.registry import MODELS

REDUCTIONS = ('conv', 'sum')


@MODELS.register_module()
class FishHeadAdapter(BaseModule):
    """Levels of the fish head, normalised and activated, for necks that expect a ResNet's.

    FishNet's levels are raw sums of residual branches. The paper attaches FPN to them as they are;
    with this in front a neck gets them in the order of a pre-activation network, norm-ReLU-conv.
    With ``out_channels`` it also brings them to given widths, for components whose input channels
    cannot be set::

        neck=[
            dict(type='mmfish.FishHeadAdapter', in_channels=[320, 832, 1600, 2112]),
            dict(type='FPN', in_channels=[320, 832, 1600, 2112], out_channels=256, num_outs=5),
        ]

    Args:
        in_channels: channels of the levels, `FishNet.out_channels`.
        out_channels: channels to bring them to: one number for each level, or one for all.
            Defaults to those they have.
        reduction: how: 'conv', norm-ReLU-1x1, or 'sum', without parameters: each k adjacent
            channels are summed (equation 8 of the paper), then norm-ReLU. Levels that have their
            width already are only normalised and activated. Defaults to 'conv'.
        norm_cfg: the normalisation layers. Defaults to GroupNorm, which one image per GPU is
            enough for, with 32 groups or the largest smaller power of two that divides the
            channels.
        init_cfg: how to initialise. Defaults to that of MMDetection's FPN.

    Raises:
        ValueError: the arguments do not fit each other.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int] | int | None = None,
        reduction: str = 'conv',
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform')
        super().__init__(init_cfg)
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}')
        if out_channels is None:
            out_channels = in_channels
        elif isinstance(out_channels, int):
            out_channels = [out_channels] * len(in_channels)
        if len(out_channels) != len(in_channels):
            raise ValueError(
                f'out_channels must have {len(in_channels)} entries, one for each level as '
                f'in_channels has, got {list(out_channels)}'
            )
        self.in_channels, self.out_channels = tuple(in_channels), tuple(out_channels)

        # How many adjacent channels are summed before normalisation, for each level.
        self.sums = [1] * len(in_channels)
        self.levels = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(zip(in_channels, out_channels, strict=True)):
            if reduction == 'sum':
                if c_in % c_out:
                    raise ValueError(
                        f'reduction by sums needs an out_channels that divides the {c_in} channels '
                        f"of level {i}, got {c_out}: choose another, or reduction='conv'"
                    )
                self.sums[i], c_in = c_in // c_out, c_out
            groups = dict(type='GN', num_groups=math.gcd(32, c_in))
            level = nn.Sequential(norm(norm_cfg or groups, c_in), nn.ReLU(inplace=True))
            if c_in != c_out:
                level.append(nn.Conv2d(c_in, c_out, 1))
            self.levels.append(level)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (N, C_i, H_i, W_i) -> levels (N, out_channels[i], H_i, W_i)."""
        return tuple(
            level(reduce_channels(x, k))
            for level, x, k in zip(self.levels, inputs, self.sums, strict=True)
        )


@MODELS.register_module()
class FishFPN(FPN):
    """`FishHeadAdapter` and MMDetection's FPN in one: ``neck=dict(type='mmfish.FishFPN')``.

    Args:
        arch: that of the backbone, which all its levels are taken from. Defaults to 'fishnet150'.
        in_channels: channels of the levels, instead of those of ``arch``; needed where the
            backbone has ``out_indices``.
        out_channels: channels of the pyramid. Defaults to 256.
        num_outs: levels of the pyramid. Defaults to 5.
        adapter_norm_cfg: the normalisation layers of the adapter. Defaults to its GroupNorm.
        **kwargs: of MMDetection's FPN.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'fishnet150',
        in_channels: Sequence[int] | None = None,
        out_channels: int = 256,
        num_outs: int = 5,
        adapter_norm_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        in_channels = list(in_channels or level_channels(arch))
        super().__init__(in_channels, out_channels, num_outs, **kwargs)
        self.adapter = FishHeadAdapter(in_channels, norm_cfg=adapter_norm_cfg)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels of the backbone -> ``num_outs`` levels of ``out_channels``, each half as large."""
        return super().forward(self.adapter(inputs))


def level_channels(arch: str | Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of all levels of an arch, without the memory that the network would take."""
    with torch.device('meta'):
        return FishNet(arch).out_channels

"""Necks for FishNet: what stands between its levels and the detector that reads them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.necks import FPN
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfish.errors import ConfigError
from mmfish.models.fishnet import FishNet, norm, reduce_channels
from mmfish.registry import MODELS

REDUCTIONS = ('conv', 'sum')


@MODELS.register_module()
class FishHeadAdapter(BaseModule):
    """Levels of the fish head, normalised and activated, for necks that expect a ResNet's.

    FishNet's levels are raw sums of residual branches. The paper attaches FPN to them as they are.
    With this neck in front of it, FPN gets them normalised and activated, in the order of a
    pre-activation network: norm-ReLU-conv. With ``out_channels`` the adapter also brings the
    levels to given widths, for components whose input channels cannot be set::

        neck=[
            dict(type='mmfish.FishHeadAdapter', in_channels=[320, 832, 1600, 2112]),
            dict(type='FPN', in_channels=[320, 832, 1600, 2112], out_channels=256, num_outs=5),
        ]

    Some necks do not read every level: RetinaNet's FPN has ``start_level=1``. The adapter in front
    of it needs the same ``start_level``. Parameters for a level that nothing reads would never get
    a gradient, and `DistributedDataParallel` stops at such parameters.

    Args:
        in_channels: channels of the levels, `FishNet.out_channels`.
        out_channels: channels to bring them to: one number for each level, or one for all.
            Defaults to ``in_channels``.
        reduction: how to change the channels. 'conv' is norm-ReLU-1x1. 'sum' has no parameters of
            its own: it sums each k adjacent channels (equation 8 of the paper) before norm-ReLU.
            Levels that have their width already are only normalised and activated. Defaults to
            'conv'.
        norm_cfg: the normalisation layers. Defaults to GroupNorm, for which one image per GPU is
            enough, with 32 groups, or with the largest smaller power of two that divides the
            channels.
        start_level: the first level that the next component reads, as in MMDetection's FPN.
            Defaults to 0.
        end_level: the last one, likewise. Defaults to -1, the last level there is. Levels outside
            of these two pass through unchanged, without parameters.
        init_cfg: how to initialise. Defaults to the ``init_cfg`` of MMDetection's FPN.

    Raises:
        ConfigError: the arguments do not fit each other.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int] | int | None = None,
        reduction: str = 'conv',
        norm_cfg: dict | None = None,
        start_level: int = 0,
        end_level: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        init_cfg = init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform')
        super().__init__(init_cfg)
        if reduction not in REDUCTIONS:
            raise ConfigError(
                f'reduction must be one of {", ".join(REDUCTIONS)}, got {reduction!r}'
            )
        if out_channels is None:
            out_channels = in_channels
        elif isinstance(out_channels, int):
            out_channels = [out_channels] * len(in_channels)
        if len(out_channels) != len(in_channels):
            raise ConfigError(
                f'out_channels must have {len(in_channels)} entries, one for each level as '
                f'in_channels has, got {list(out_channels)}'
            )
        last_level = len(in_channels) - 1 if end_level == -1 else end_level
        if not 0 <= start_level <= last_level < len(in_channels):
            raise ConfigError(
                f'start_level and end_level must be levels of 0..{len(in_channels) - 1}, in this '
                f'order, got {start_level} and {end_level}'
            )
        self.in_channels = tuple(in_channels)

        # How many adjacent channels are summed before normalisation, for each level.
        self.sums = [1] * len(in_channels)
        self.levels = nn.ModuleList()
        for i, (c_in, c_out) in enumerate(zip(in_channels, out_channels, strict=True)):
            if not start_level <= i <= last_level:
                self.levels.append(nn.Identity())
                continue
            if reduction == 'sum':
                if c_in % c_out:
                    raise ConfigError(
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
        """Levels (N, C_i, H_i, W_i) -> as many, those that are read as (N, C_out_i, H_i, W_i)."""
        return tuple(
            level(reduce_channels(x, k))
            for level, x, k in zip(self.levels, inputs, self.sums, strict=True)
        )


@MODELS.register_module()
class FishFPN(FPN):
    """`FishHeadAdapter` and MMDetection's FPN in one: ``neck=dict(type='mmfish.FishFPN')``.

    Args:
        arch: the backbone's; the pyramid gets all levels of it. Defaults to 'fishnet150'.
        in_channels: channels of the levels, instead of those of ``arch``. Necessary where the
            backbone has ``out_indices``.
        out_channels: channels of the pyramid. Defaults to 256.
        num_outs: number of the pyramid's levels. Defaults to 5.
        adapter_norm_cfg: the normalisation layers of the adapter. Defaults to the adapter's
            GroupNorm.
        **kwargs: further arguments of MMDetection's FPN. The adapter follows ``start_level`` and
            ``end_level``.
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
        self.adapter = FishHeadAdapter(
            in_channels,
            norm_cfg=adapter_norm_cfg,
            start_level=self.start_level,
            end_level=self.end_level,
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (N, C_i, H_i, W_i) -> ``num_outs`` levels with ``out_channels`` channels."""
        return super().forward(self.adapter(inputs))


def level_channels(arch: str | Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of all levels of an arch, from a network on the meta device, without memory."""
    with torch.device('meta'):
        return FishNet(arch).out_channels

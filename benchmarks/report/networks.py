"""The report's networks: FishNet as its code builds it, and what it is compared with."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmfish.models import FishNet, FishNetClsHead
from mmfish.models.archs import resolve_arch
from mmfish.models.fishnet import Blocks, Bottleneck, norm
from mmfish.registry import MODELS

# What Keras normalises with.
KERAS_BN = dict(type='BN', eps=1e-3, momentum=0.01)


@MODELS.register_module()
class ReportFishNet(FishNet):
    """FishNet for images of 56x56 pixels, with what the report's code has other than the release.

    The stem has two 3x3 convolutions, both of stride 1; the first 1x1 convolution of the bridge
    keeps its channels, and no ReLU follows it; and the last head stage may change its channels.

    Args:
        arch: 'fishnet55' or 'fishnet77', or an entry in the form of the table of archs.
        in_channels: channels of the image. Defaults to 3.
        last_channels: to which the last head stage brings its channels (48 in FishNet-55).
            Defaults to None: it keeps them.
        init_cfg: how to initialise. Defaults to that of `FishNet`.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'fishnet55',
        in_channels: int = 3,
        last_channels: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        entry = resolve_arch(arch)
        super().__init__(
            arch,
            in_channels,
            out_indices=(len(entry['tail']['channels']),),
            stem='small',
            norm_cfg=KERAS_BN,
            init_cfg=init_cfg,
        )
        del self.stem[3:6]  # convolution, BN and ReLU in the middle, which keep the channels
        c = entry['tail']['channels'][-1]
        self.bridge.score = nn.Sequential(
            norm(KERAS_BN, c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, c, 1, bias=False),
            norm(KERAS_BN, c),
            nn.Conv2d(c, 2 * c, 1),
        )
        if last_channels is not None:
            before = self.head[-1].refine[0].conv1.in_channels
            options = dict(width=last_channels // entry['expansion'], norm_cfg=KERAS_BN)
            self.head[-1].refine = Blocks(
                Bottleneck(before, last_channels, **options),
                *(
                    Bottleneck(last_channels, last_channels, **options)
                    for _ in range(entry['head']['blocks'][-1] - 1)
                ),
            )
            self.out_channels = (self.out_channels[0] - before + last_channels,)


@MODELS.register_module()
class ReportHead(FishNetClsHead):
    """The classifier without the ReLU before its last layer: BN-ReLU-1x1-BN, and the end.

    Args:
        **options: of `FishNetClsHead`. ``feat_size`` makes the report's dense end, and its absence
            the convolutional one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(norm_cfg=KERAS_BN, **options)
        del self.score[4]


@MODELS.register_module()
class ReportBaseline(BaseModule):
    """One of the networks that the report compares with, up to its last layer.

    Args:
        kind: 'mlp' (256 hidden units), 'cnn' (5x5 convolution, 2x2 max-pooling, 520 units), or
            'mobilenet' (MobileNet 1.0, Howard et al. 2017).
        init_cfg: how to initialise.
    """

    def __init__(self, kind: str, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        self.layers = dict(mlp=_mlp, cnn=_cnn, mobilenet=_mobilenet)[kind]()

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(N, 3, 56, 56) -> one feature, (N, 256), (N, 520) or (N, 1024)."""
        return (self.layers(x),)


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 56 * 56, 256), nn.ReLU())


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 9, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9 * 28 * 28, 520),
        nn.ReLU(),
    )


def _mobilenet() -> nn.Sequential:
    def layer(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list:
        padding = kernel // 2
        return [
            nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False),
            norm(KERAS_BN, c_out),
            nn.ReLU6(inplace=True),
        ]

    layers = layer(3, 32, 3, stride=2)
    c = 32
    separable = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    separable += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for c_out, stride in separable:
        layers += layer(c, c, 3, stride, groups=c) + layer(c, c_out, 1)
        c = c_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

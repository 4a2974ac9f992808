"""FishNet (Sun et al., NeurIPS 2018): tail, body and head, as in figure 2 of the paper.

    stride  tail               body               head
       4    stem ----T-------> 3rd: concat -----> refine ----> level 0
             | refine, pool     ^ refine, up       | pool
       8    stage 1 -T-------> 2nd: concat --T--> concat, refine ----> level 1
             | refine, pool     ^ refine, up       | pool
      16    stage 2 -T-------> 1st: concat --T--> concat, refine ----> level 2
             | refine, pool     ^ refine, up       | pool
      32    stage 3 --bridge----+------------T--> concat ----> level 3

T is a transfer: residual blocks through which a feature passes before it is concatenated. Up is
nearest interpolation, pool is 2x2 max-pooling. Body and head change resolution and channels
without any convolution outside a residual branch, so that gradients reach every stage directly
(section 3.2 of the paper).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmpretrain.models.backbones.resnet import BasicBlock, ResLayer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmfish.errors import ConfigError
from mmfish.models.archs import resolve_arch
from mmfish.models.pooling import MaxPool2d
from mmfish.registry import MODELS, WEIGHT_INITIALIZERS, pretrained_cfg

DOWN_SAMPLE = ('max2', 'max3', 'avg2', 'conv')
DILATION = ('none', 'body', 'body+head')
STEM_STRIDE = dict(conv3x3=4, conv7x7=4, residual=4, small=1)

# In a compiled graph torch 2.4 updates BatchNorm's statistics in the recomputation too, torch 2.11
# does not; those between have not been tried.
OLD_COMPILER = torch.__version__ < '2.11'


def reduce_channels(x: Tensor, k: int) -> Tensor:
    """Sum each k adjacent channels (r of equation 8).

    Args:
        x: (N, C, H, W).
        k: divides C.

    Returns:
        (N, C / k, H, W), in the layout of `x`; `x` itself for k = 1.
    """
    if k == 1:
        return x
    if x.is_contiguous():
        return x.unflatten(1, (-1, k)).sum(2)
    # In channels-last the channels have to come last, or sum and gradient change the layout.
    return x.movedim(1, -1).unflatten(-1, (-1, k)).sum(-1).movedim(-1, 1)


class Bottleneck(BaseModule):
    """B(c_in, c_out): the pre-activation residual unit (He et al. 2016) that the fish is made of.

    BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, plus the shortcut: the identity where the channels
    stay, else BN-ReLU-1x1, or the parameter-free channel reduction if ``reduce``.

    Submodules stand in the order in which they compute: MMDetection's `fuse_conv_bn` relies on it.

    Args:
        in_channels: c_in.
        out_channels: c_out.
        width: channels of the 3x3 convolution.
        groups: of the 3x3 convolution.
        dilation: of the 3x3 convolution.
        reduce: bring the shortcut to c_out by summing adjacent channels, not by a convolution.
        norm_cfg: the normalisation layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        norm_cfg: dict,
        groups: int = 1,
        dilation: int = 1,
        reduce: bool = False,
    ) -> None:
        super().__init__()
        self.bn1 = norm(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = norm(norm_cfg, width)
        self.conv2 = nn.Conv2d(
            width, width, 3, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn3 = norm(norm_cfg, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        if reduce:
            self.shortcut = partial(reduce_channels, k=in_channels // out_channels)
        elif in_channels != out_channels:
            self.shortcut = nn.Sequential(
                norm(norm_cfg, in_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
            )
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        y = self.conv1(F.relu(self.bn1(x), inplace=True))
        y = self.conv2(F.relu(self.bn2(y), inplace=True))
        y = self.conv3(F.relu(self.bn3(y), inplace=True))
        return y.add_(self.shortcut(x))


class Blocks(nn.Sequential):
    """Blocks in a row, in a refinement or a transfer.

    Args:
        *blocks: in the order in which they compute.
        with_cp: in training mode keep the input of the first alone, and compute the rest again in
            the backward pass.
    """

    def __init__(self, *blocks: Bottleneck, with_cp: bool = False) -> None:
        super().__init__(*blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        if not (self.with_cp and self.training and torch.is_grad_enabled()):
            return super().forward(x)
        if torch.compiler.is_compiling():
            # A compiled graph updates the statistics once by itself, and takes no such contexts.
            if OLD_COMPILER and any(
                isinstance(m, _BatchNorm) and m.training for m in self.modules()
            ):
                return super().forward(x)
            return checkpoint(super().forward, x, use_reentrant=False)
        contexts = partial(_recompute_contexts, self)
        return checkpoint(super().forward, x, use_reentrant=False, context_fn=contexts)


class Bridge(BaseModule):
    """From tail to body at the smallest size: blocks under a squeeze-and-excitation gate.

    score = BN-ReLU-1x1(c -> c/2)-BN-ReLU-1x1(c/2 -> 2c); gate = sigmoid of BN-ReLU-GAP-1x1-ReLU-1x1
    of the score; out = blocks(score) * gate + gate (section 3.2, "Bridge module").

    Args:
        channels: c, in and out.
        blocks: from 2c to c channels.
        norm_cfg: the normalisation layer.
    """

    def __init__(self, channels: int, blocks: nn.Sequential, norm_cfg: dict) -> None:
        super().__init__()
        c, squeezed = channels, max(channels // 16, 1)
        self.score = nn.Sequential(*pre_score(c, norm_cfg), nn.Conv2d(c // 2, 2 * c, 1))
        self.blocks = blocks
        self.gate = nn.Sequential(
            norm(norm_cfg, 2 * c),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(2 * c, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, c, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, c, H, W)."""
        score = self.score(x)
        gate = self.gate(score)
        return self.blocks(score) * gate + gate


class UpRefine(BaseModule):
    """The UR-block of the body (equations 4 to 7): refine, up-sample, concatenate.

    Args:
        refine: blocks that reduce the channels.
        transfer: blocks through which the tail's feature passes.
    """

    def __init__(self, refine: nn.Sequential, transfer: nn.Sequential) -> None:
        super().__init__()
        self.refine = refine
        self.transfer = transfer

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and the tail's (N, C', ~2H, ~2W) -> (N, C_refined + C', ~2H, ~2W)."""
        # The skip's size, not a factor of 2: the tail's pooling rounds odd sizes down.
        x = F.interpolate(self.refine(x), size=skip.shape[-2:], mode='nearest')
        return torch.cat([x, self.transfer(skip)], dim=1)


class DownRefine(BaseModule):
    """The DR-block of the head (equation 9): refine, pool, concatenate.

    Args:
        refine: blocks that keep the channels.
        down: halves the resolution; None if nothing after ``refine`` is needed.
        transfer: blocks through which the body's feature passes; None likewise.
    """

    def __init__(
        self, refine: nn.Sequential, down: nn.Module | None, transfer: nn.Sequential | None
    ) -> None:
        super().__init__()
        self.refine = refine
        self.down = down
        self.transfer = transfer

    def concat(self, refined: Tensor, skip: Tensor) -> Tensor:
        """(N, C, H, W) and the body's (N, C', H/2, W/2) -> (N, C + C', H/2, W/2)."""
        return torch.cat([self.down(refined), self.transfer(skip)], dim=1)


@MODELS.register_module()
class FishNet(BaseModule):
    """FishNet, "A Versatile Backbone for Image, Region, and Pixel Level Prediction".

    The levels are taken from the fish head (section 4.4): the refined features at strides 4, 8
    and 16 before they are pooled, and the last concatenation at stride 32. They are sums of
    residual branches before any normalisation or activation, to which the paper attaches FPN's
    lateral convolutions as they are. For fishnet99, 150 and 201 they have 320, 832, 1600 and 2112
    channels.

    Only what the levels in ``out_indices`` need is built and computed.

    Args:
        arch: a name or an entry of the table `mmfish.models.ARCHS`. Defaults to 'fishnet150'.
        in_channels: channels of the image. Defaults to 3.
        out_indices: levels to return, rising; level i has stride 4 * 2**i. Defaults to all:
            (0, 1, 2, 3), or (0, 1, 2) for archs of two stages.
        frozen_stages: -1 freezes nothing, 0 the stem, 1 to 3 also the tail's stages, 4 the bridge,
            5 to 7 the body's and 8 to 10 the head's stages. Frozen means no gradients, and
            normalisation in eval mode. Defaults to -1.
        norm_cfg: the normalisation layers. Defaults to dict(type='BN').
        norm_eval: keep BatchNorm in eval mode, its statistics fixed, while training. Defaults to
            False.
        with_cp: in training mode, recompute each stage's blocks, and each transfer's, in the
            backward pass instead of keeping their activations: less memory, more time, the same
            numbers. Defaults to False.
        down_sample: 'max2' (2x2 max-pooling), 'max3' (3x3 with stride 2), 'avg2' (2x2 average), or
            'conv' (BN-ReLU-1x1 with stride 2), in tail and head (table 2). Defaults to 'max2'.
        dilation: the 3x3 convolutions of 'none', 'body' or 'body+head' are dilated, by 1 at the
            smallest size and twice that for each doubling (section 4.3). That those of the head
            grow likewise is our inference. Defaults to 'body'.
        stem: 'conv3x3' (three of them, as released), 'conv7x7' (that of ResNet) or 'residual' (two
            residual blocks instead of it, section 4.3; that they are ResNet's basic blocks, the
            first with stride 2, is our inference), each followed by 3x3 max-pooling; or 'small',
            the three 3x3s without stride or pooling, for images of 56x56 and less: level i then
            has stride 2**i. Defaults to 'conv3x3'.
        zero_init_residual: let each block begin as its shortcut, with zeros in its last
            convolution, as MMDetection's ResNet does; for training from scratch. Loaded weights
            stay as they are. Defaults to False, as released.
        init_cfg: how to initialise. Defaults to N(0, sqrt(2 / (k * k * c_out))) for convolutions.

    Attributes:
        out_channels (tuple[int, ...]): channels of the levels in ``out_indices``.

    Raises:
        ConfigError: an argument is out of its range, or channels do not divide as ``arch`` asks.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'fishnet150',
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        down_sample: str = 'max2',
        dilation: str = 'body',
        stem: str = 'conv3x3',
        zero_init_residual: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg or default_init_cfg())
        self.arch = arch
        arch = resolve_arch(arch)
        tail, bridge, body, head = (arch[part] for part in ('tail', 'bridge', 'body', 'head'))
        stages = len(tail['channels'])
        norm_cfg = norm_cfg or dict(type='BN')
        _check_choice('down_sample', down_sample, DOWN_SAMPLE)
        _check_choice('dilation', dilation, DILATION)
        _check_choice('stem', stem, STEM_STRIDE)
        self.out_indices = _check_out_indices(out_indices, stages)
        last_stage = 3 * stages + 1
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= last_stage:
            raise ConfigError(f'frozen_stages must be in -1..{last_stage}, got {frozen_stages!r}')
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ConfigError(f'in_channels must be a positive whole number, got {in_channels!r}')
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.zero_init_residual = zero_init_residual
        self.min_size = STEM_STRIDE[stem] * 2**stages

        def blocks(c_in: int, c_out: int, n: int, level: int, **options: Any) -> nn.Sequential:
            width, groups = _bottleneck(c_out, level, arch)
            options.update(width=width, groups=groups, norm_cfg=norm_cfg)
            rest = {**options, 'reduce': False}
            return Blocks(
                Bottleneck(c_in, c_out, **options),
                *(Bottleneck(c_out, c_out, **rest) for _ in range(n - 1)),
                with_cp=with_cp,
            )

        def transfer(channels: int, n: int, level: int) -> nn.Sequential:
            return blocks(channels, channels, n, level)

        def dilate(part: str, level: int) -> int:
            return 2 ** (stages - level) if part in dilation.split('+') else 1

        down = partial(_down_sample, down_sample, norm_cfg=norm_cfg)

        c = arch['stem']
        self.stem = _stem(stem, in_channels, c, norm_cfg)

        # Tail: stage i works at level i, and its pooled feature is what level i + 1 shares.
        self.tail = nn.ModuleList()
        tail_channels = [c]
        for level, (c_out, n) in enumerate(zip(tail['channels'], tail['blocks'], strict=True)):
            self.tail.append(nn.Sequential(blocks(c, c_out, n, level), down(c_out)))
            c = c_out
            tail_channels.append(c)

        c = tail_channels.pop()
        self.bridge = Bridge(c, blocks(2 * c, c, bridge['blocks'], stages), norm_cfg)

        # Body: refine at one level, then concatenate with the tail at the next larger one.
        self.body = nn.ModuleList()
        body_channels = [c]
        for level, c_out, n, n_transfer in zip(
            range(stages, 0, -1), body['channels'], body['blocks'], body['transfers'], strict=True
        ):
            if c % c_out:
                raise ConfigError(
                    f"arch['body']['channels'] has {c_out} at level {level}, which does "
                    f'not divide the {c} channels that are to be reduced there (equation 8)'
                )
            refine = blocks(c, c_out, n, level, dilation=dilate('body', level), reduce=True)
            skip = tail_channels.pop()
            self.body.append(UpRefine(refine, transfer(skip, n_transfer, level - 1)))
            c = c_out + skip
            body_channels.append(c)

        # Head: refine at one level, then concatenate with the body at the next smaller one.
        self.head = nn.ModuleList()
        c = body_channels.pop()
        level_channels = [c]
        last = self.out_indices[-1]
        for level, n, n_transfer in zip(
            range(stages), head['blocks'], head['transfers'], strict=True
        ):
            if level > last:
                break
            refine = blocks(c, c, n, level, dilation=dilate('head', level))
            if level == last:
                self.head.append(DownRefine(refine, None, None))
                break
            skip = body_channels.pop()
            self.head.append(
                DownRefine(refine, down(c), transfer(skip, n_transfer, level + 1)),
            )
            c += skip
            level_channels.append(c)

        self.out_channels = tuple(level_channels[i] for i in self.out_indices)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the levels.

        Args:
            x: images, (N, in_channels, H, W). H and W are at least the stride of the arch's last
                level: 32 with three stages, 16 with two, and with the stem 'small' a quarter.

        Returns:
            For each level i in ``out_indices`` (N, C_i, ~H / s_i, ~W / s_i), where s_i is its
            stride: 4 * 2**i, or 2**i with the stem 'small'.

        Raises:
            ConfigError: an image is smaller than that in one direction, or the shape is another.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f'FishNet takes images of shape (N, {self.in_channels}, height, width), as '
                f'in_channels says, got {tuple(x.shape)}'
            )
        if min(x.shape[-2:]) < self.min_size:
            raise ConfigError(
                f'FishNet needs images of at least {self.min_size}x{self.min_size} pixels, '
                f'got {x.shape[-2]}x{x.shape[-1]}'
            )
        tail = [self.stem(x)]
        for stage in self.tail:
            tail.append(stage(tail[-1]))

        body = [self.bridge(tail.pop())]
        for stage in self.body:
            body.append(stage(body[-1], tail.pop()))

        levels = []
        x = body.pop()
        for stage in self.head:
            levels.append(stage.refine(x))
            if stage.transfer is not None:
                x = stage.concat(levels[-1], body.pop())
        if len(levels) <= self.out_indices[-1]:
            levels.append(x)
        return tuple(levels[i] for i in self.out_indices)

    def train(self, mode: bool = True) -> 'FishNet':
        """Set the mode; frozen stages, and with ``norm_eval`` all BatchNorm, stay in eval mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says.

        ``dict(type='Pretrained', checkpoint=X)`` takes a released file, one of pytorchcv's, a
        classifier or detector of MMEngine's with a FishNet in it, ``pytorchcv://fishnet150``, or
        a name of the authors' files, such as ``official://fishnet99``.

        Raises:
            CheckpointError: X cannot be read, holds no FishNet, or one of another architecture.
            ConfigError: ``init_cfg`` is not a dict with a type, or a list of these.
        """
        init_cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        for cfg in init_cfgs:
            if not isinstance(cfg, dict) or 'type' not in cfg:
                raise ConfigError(f"init_cfg must be a dict with a 'type' or a list of them: {cfg}")
        pretrained = pretrained_cfg(init_cfgs)
        if pretrained is not None:
            # MMEngine's own initialiser knows none of the foreign names: it loads in part and goes
            # on. Ours is built by its name, as the network cannot import what imports the network.
            cfg = dict(type='mmfish.PretrainedFishNet', checkpoint=pretrained.get('checkpoint'))
            WEIGHT_INITIALIZERS.build(cfg)(self)
            self.is_init = True
            return
        super().init_weights()
        if self.zero_init_residual:
            for module in self.modules():
                if isinstance(module, Bottleneck):
                    nn.init.zeros_(module.conv3.weight)

    def expects_key(self, key: str) -> bool:
        """Whether a key of a whole FishNet's state dict belongs to something that was built here.

        Args:
            key: such as ``head.2.transfer.0.bn1.weight``, of which a network with
                ``out_indices=(0, 1)`` has nothing.
        """
        stage = re.match(r'head\.(\d+)\.(\w+)\.', key)
        if stage is None or int(stage[1]) >= len(self.tail):
            return True
        last = self.out_indices[-1]
        return int(stage[1]) < last or (int(stage[1]) == last and stage[2] == 'refine')

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # The caller passes a copy of the state dict that is there to be changed.
        for key in [key for key in state_dict if key.startswith(f'{prefix}head.')]:
            if not self.expects_key(key.removeprefix(prefix)):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def stages(self) -> Iterator[nn.Module]:
        """The stages in the order in which ``frozen_stages`` counts them."""
        yield self.stem
        yield from self.tail
        yield self.bridge
        yield from self.body
        yield from self.head

    def _freeze(self) -> None:
        for _, stage in zip(range(self.frozen_stages + 1), self.stages(), strict=False):
            stage.eval()
            stage.requires_grad_(False)


def norm(norm_cfg: dict, channels: int) -> nn.Module:
    """A normalisation layer built from its config."""
    try:
        return build_norm_layer(norm_cfg, channels)[1]
    except (TypeError, KeyError, ValueError) as error:
        # A KeyError puts its message in quotes.
        reason = error.args[0] if error.args else type(error).__name__
        raise ConfigError(
            f'norm_cfg={norm_cfg!r} gives no layer for {channels} channels ({reason}): expected '
            "something like dict(type='BN') or dict(type='GN', num_groups=32)"
        ) from error


def pre_score(channels: int, norm_cfg: dict) -> list[nn.Module]:
    """BN-ReLU-1x1(c -> c/2)-BN-ReLU: what the scores of bridge and classifier begin with."""
    return [
        norm(norm_cfg, channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        norm(norm_cfg, channels // 2),
        nn.ReLU(inplace=True),
    ]


def default_init_cfg() -> list[dict]:
    """N(0, sqrt(2 / (k * k * c_out))) for convolutions; 1 and 0 for normalisation."""
    return [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', layer=['_BatchNorm', 'GroupNorm'], val=1),
    ]


def _stem(kind: str, in_channels: int, channels: int, norm_cfg: dict) -> nn.Sequential:
    def conv(c_in: int, c_out: int, kernel_size: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(c_in, c_out, kernel_size, stride, padding=kernel_size // 2, bias=False),
            norm(norm_cfg, c_out),
            nn.ReLU(inplace=True),
        ]

    c = channels
    if kind in ('conv3x3', 'small'):
        layers = [
            *conv(in_channels, c // 2, 3, stride=1 if kind == 'small' else 2),
            *conv(c // 2, c // 2, 3),
            *conv(c // 2, c, 3),
        ]
    elif kind == 'conv7x7':
        layers = conv(in_channels, c, 7, stride=2)
    else:
        layers = [ResLayer(BasicBlock, 2, in_channels, c, stride=2, norm_cfg=norm_cfg)]
    if kind != 'small':
        layers.append(MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers)


def _down_sample(kind: str, channels: int, norm_cfg: dict) -> nn.Module:
    if kind == 'conv':
        # 1x1: the only kernel that comes to the 3.8M more parameters which the paper states.
        return nn.Sequential(
            norm(norm_cfg, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, stride=2, bias=False),
        )
    return {
        'max2': partial(MaxPool2d, 2, stride=2),
        'max3': partial(MaxPool2d, 3, stride=2, padding=1),
        'avg2': partial(nn.AvgPool2d, 2, stride=2),
    }[kind]()


def _bottleneck(c_out: int, level: int, arch: Mapping[str, Any]) -> tuple[int, int]:
    """Width and groups of the 3x3 convolution of a block with c_out channels at a level."""
    if c_out % arch['expansion']:
        raise ConfigError(
            f"arch['expansion'] = {arch['expansion']} does not divide the {c_out} channels of a "
            f'block at level {level}'
        )
    width = c_out // arch['expansion']
    if arch['group_width'] is None:
        return width, 1
    group_width = arch['group_width'] * 2**level
    if width % group_width:
        raise ConfigError(
            f"arch['group_width'] = {arch['group_width']} asks for groups of {group_width} "
            f'channels at level {level}, which do not divide a bottleneck {width} wide'
        )
    return width, width // group_width


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f'{name} must be one of {", ".join(choices)}, got {value!r}')


def _check_out_indices(out_indices: Sequence[int] | None, stages: int) -> tuple[int, ...]:
    levels = tuple(range(stages + 1))
    if out_indices is None:
        return levels
    if not isinstance(out_indices, tuple | list) or not (
        out_indices and list(out_indices) == [i for i in levels if i in out_indices]
    ):
        raise ConfigError(
            f'out_indices must be levels of 0..{stages} (the last after {stages} times '
            f'down-sampling), rising, got {out_indices}'
        )
    return tuple(int(i) for i in out_indices)


class _StatisticsKept:
    """While blocks are recomputed, BatchNorm updates copies of its statistics, to throw away.

    A class, because one graph may be recomputed several times, and each time enters it again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(bn, name, b) for bn in self.norms for name, b in bn.named_buffers()]
        for bn, name, buffer in self.kept:
            setattr(bn, name, buffer.clone())

    def __exit__(self, *exception: object) -> None:
        for bn, name, buffer in self.kept:
            setattr(bn, name, buffer)


def _recompute_contexts(module: nn.Module) -> tuple[AbstractContextManager, ...]:
    """The contexts of `checkpoint`: of the forward pass, and of computing it again."""
    return nullcontext(), _StatisticsKept(module)

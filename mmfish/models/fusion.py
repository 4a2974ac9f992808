"""Models prepared for inference: normalisation folded into the convolutions beside it."""

import copy
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfish.models.fishnet import Blocks, Bottleneck, FishNet, UpRefine
from mmfish.models.norm import FrozenBN

# By exact type: subclasses such as MMCV's ConvWS2d compute their weights anew in each call.
CONVS = (nn.Conv2d, Conv2d)


@torch.no_grad()
def fuse(model: nn.Module) -> nn.Module:
    """Copy a model for inference, with the same outputs to 1e-5.

    BatchNorm after a convolution becomes part of it: as in MMCV's `fuse_conv_bn`, one that is
    defined right after a convolution of as many channels is taken to follow it. BatchNorm and ReLU
    before a 1x1 convolution, as in FishNet's pre-activation order, become one clamp and part of the
    convolution: relu(s * x + t) = s * clamp(x) + t at -t / s, from below where s > 0, from above
    where s < 0.

    What stays: normalisation that depends on the input, convolutions that several layers share.

    Args:
        model: a backbone, classifier or detector. It is not changed.

    Returns:
        The copy, in eval mode and without gradients. Its weights cannot be loaded into the plain
        model any more. Meant for single precision: in half precision the clamp costs accuracy.
    """
    model = copy.deepcopy(model)
    model.eval()  # not in a chain: for some of MMDetection's backbones it returns None
    uses = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    shared = {module for module, n in uses.items() if n > 1}
    for module in list(model.modules()):
        _fold_norms_into_convs(module, shared)
    for module in list(model.modules()):
        if type(module) is nn.Sequential:
            _clamp_before_convs(module, shared)
        for name, child in module.named_children():
            if isinstance(child, Bottleneck) and _is_fixed(child.bn1):
                setattr(module, name, FusedBottleneck(child))
    model.eval()
    return model.requires_grad_(False)


def split_up_sampling(model: nn.Module, divisor: int = 1) -> nn.Module:
    """Let FishNet compute before it up-samples what it would compute after, to the same result.

    BatchNorm, ReLU, 1x1 convolutions and channel reduction take each pixel for itself, so that
    nearest up-sampling may come after them; before it there is a quarter of the pixels. The first
    block behind a concatenation in the body does this to the part that is up-sampled. It sums
    channels by a convolution, which in a runtime keeps the layout of its convolutions.

    Args:
        model: for inference. Each FishNet in it is changed in place.
        divisor: what height and width of all images are multiples of. Up-sampling by a factor of 2
            is then exact, and ONNX Runtime does it in the layout of its convolutions.

    Returns:
        The model.
    """
    for net in [module for module in model.modules() if isinstance(module, FishNet)]:
        for stage in (*net.body, *net.head):
            for name, blocks in list(stage.named_children()):
                if isinstance(blocks, Blocks):
                    setattr(stage, name, SplitBlocks(blocks))
        factor = None if divisor % net.min_size else 2.0
        net.body = nn.ModuleList(SplitUpRefine(stage, factor) for stage in net.body)
    return model


class Concatenated(NamedTuple):
    """What an UR-block gives, and of what: cat([up(small), skip])."""

    whole: Tensor
    small: Tensor
    skip: Tensor
    up: Callable[[Tensor], Tensor]


class SplitUpRefine(nn.Module):
    """An `UpRefine` that gives the parts of its output too.

    Args:
        stage: whose modules are taken over.
        factor: of the up-sampling; None where it goes to the size of the skip.
    """

    def __init__(self, stage: UpRefine, factor: float | None) -> None:
        super().__init__()
        self.refine, self.transfer = stage.refine, stage.transfer
        self.factor = factor

    def forward(self, x: Tensor | Concatenated, skip: Tensor) -> Concatenated:
        """As `UpRefine`."""
        small, skip = self.refine(x), self.transfer(skip)
        size = None if self.factor else skip.shape[-2:]
        up = partial(F.interpolate, size=size, scale_factor=self.factor, mode='nearest')
        return Concatenated(torch.cat([up(small), skip], 1), small, skip, up)


class SplitBlocks(nn.Module):
    """`Blocks` of which the first takes the parts of its input apart, where there are any."""

    def __init__(self, blocks: Blocks) -> None:
        super().__init__()
        self.first, self.rest = blocks[0], blocks[1:]
        c_in, c_out = self.first.conv1.in_channels, self.first.conv3.out_channels
        self.k = c_in // c_out
        sums = torch.eye(c_out).repeat_interleave(self.k, 1)
        self.register_buffer('sums', sums[:, :, None, None])
        self.splits = (
            isinstance(self.first, Bottleneck)  # and not what `fuse` has made of one
            and _is_fixed(self.first.bn1)
            and _is_fixed(self.first.bn2)
            and self.first.bn1.weight is not None
        )
        if self.splits:
            self.conv1 = fuse_conv_bn_eval(self.first.conv1, self.first.bn2)

    def forward(self, x: Tensor | Concatenated) -> Tensor:
        """As `Blocks`."""
        if not isinstance(x, Concatenated):
            return self.rest(self.first(x))
        block = self.first
        channels = int(x.small.shape[1])
        if not self.splits or channels % self.k:
            return self.rest(block(x.whole))
        bn = block.bn1

        def part(feature: Tensor, which: slice, bias: Tensor | None) -> Tensor:
            # Slices of weights, unlike splits of them, are constants in an ONNX file.
            norm = bn.running_mean[which], bn.running_var[which], bn.weight[which], bn.bias[which]
            feature = F.relu(F.batch_norm(feature, *norm, eps=bn.eps))
            return F.conv2d(feature, self.conv1.weight[:, which], bias)

        small = part(x.small, slice(channels), None)
        skip = part(x.skip, slice(channels, None), self.conv1.bias)
        y = F.relu(skip + x.up(small))
        y = block.conv3(F.relu(block.bn3(block.conv2(y))))
        return self.rest(y + self._shortcut(x, channels))

    def _shortcut(self, x: Concatenated, channels: int) -> Tensor:
        if self.k == 1:
            return x.whole
        reduced = channels // self.k
        small = F.conv2d(x.small, self.sums[:reduced, :channels])
        skip = F.conv2d(x.skip, self.sums[reduced:, channels:])
        return torch.cat([x.up(small), skip], 1)


class Clamp(nn.Module):
    """What is left of BatchNorm and ReLU when the next convolution takes over scale and shift.

    Args:
        low: (C,), -inf where there is no bound.
        high: (C,), inf where there is no bound.
    """

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer('low', low[:, None, None])
        # One bound is faster than two, and most networks have no negative scale.
        self.register_buffer('high', high[:, None, None] if high.isfinite().any() else None)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if self.high is None:
            return torch.maximum(x, self.low.to(x.dtype))
        return torch.clamp(x, self.low.to(x.dtype), self.high.to(x.dtype))


class FusedBottleneck(nn.Module):
    """What is left of a `Bottleneck` whose norms are folded.

    Args:
        block: with bn2 and bn3 in the convolutions before them already. Its modules are taken over.
    """

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.clamp, self.conv1 = _clamp_and_conv(block.bn1, block.conv1)
        self.conv2, self.conv3 = block.conv2, block.conv3
        self.bn2, self.bn3 = block.bn2, block.bn3
        self.shortcut = block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) -> (N, c_out, H, W)."""
        y = self.conv1(self.clamp(x))
        y = self.conv2(F.relu(self.bn2(y), inplace=True))
        y = self.conv3(F.relu(self.bn3(y), inplace=True))
        return y.add_(self.shortcut(x))


def _fold_norms_into_convs(module: nn.Module, shared: set[int]) -> None:
    # By the order of the children, as MMCV's fuse_conv_bn does: the mm* models are written for it.
    if isinstance(module, ConvModule) and module.order[:2] != ('conv', 'norm'):
        return
    for (conv_name, conv), (norm_name, norm) in pairwise(module.named_children()):
        if (
            type(conv) in CONVS
            and _is_fixed(norm)
            and conv.out_channels == norm.num_features
            and not {id(conv), id(norm)} & shared
        ):
            setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
            setattr(module, norm_name, nn.Identity())


def _clamp_before_convs(layers: nn.Sequential, shared: set[int]) -> None:
    for i, (norm, relu, conv) in enumerate(zip(layers, layers[1:], layers[2:], strict=False)):
        if (
            _is_fixed(norm)
            and isinstance(relu, nn.ReLU)
            and type(conv) in CONVS
            and conv.kernel_size == (1, 1)
            and conv.padding == (0, 0)
            and conv.groups == 1
            and not {id(norm), id(conv)} & shared
        ):
            layers[i], layers[i + 2] = _clamp_and_conv(norm, conv)
            layers[i + 1] = nn.Identity()


def _clamp_and_conv(norm: nn.Module, conv: nn.Conv2d) -> tuple[Clamp, nn.Conv2d]:
    """BN-ReLU-1x1 as clamp-1x1, with a bias."""
    mean, var = norm.running_mean.double(), norm.running_var.double()
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -mean * scale if norm.bias is None else norm.bias.double() - mean * scale
    # A channel without a scale is a constant, whatever it is clamped to.
    constant = scale.abs() < 1e-20
    edge = torch.where(constant, 0, -shift / scale)
    infinity = torch.full_like(edge, torch.inf)
    clamp = Clamp(
        torch.where(scale < 0, -infinity, edge).to(norm.running_var),
        torch.where(scale > 0, infinity, edge).to(norm.running_var),
    )
    scale = torch.where(constant, 0, scale)
    shift = torch.where(constant, shift.clamp(min=0), shift)

    weight = conv.weight.double()
    bias = weight.flatten(1) @ shift
    if conv.bias is not None:
        bias += conv.bias.double()
    fused = copy.deepcopy(conv)
    fused.weight.data = (weight * scale[:, None, None]).to(conv.weight)
    fused.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
    return clamp, fused


def _is_fixed(norm: nn.Module) -> bool:
    """Whether a layer is BatchNorm with statistics of its own."""
    return isinstance(norm, _BatchNorm | FrozenBN) and norm.running_mean is not None

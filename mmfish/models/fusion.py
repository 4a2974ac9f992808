"""Models prepared for inference: normalisation folded into the convolutions beside it."""

import copy
from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.wrappers import Conv2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmfish.models.fishnet import Bottleneck
from mmfish.models.norm import FrozenBN

# By exact type: subclasses such as MMCV's ConvWS2d compute their weights anew in each call.
CONVS = (nn.Conv2d, Conv2d)


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
    model.eval()  # on its own: some of MMDetection's backbones return nothing here
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

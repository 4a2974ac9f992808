"""Normalisation with nothing left to learn."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from mmfish.registry import MODELS


@MODELS.register_module()
class FrozenBN(nn.Module):
    """BatchNorm with statistics and affine fixed, in training too: y = x * scale + shift.

    The numbers are those of BatchNorm in eval mode, for a fraction of its memory in training:
    BatchNorm keeps its input for gradients that nobody asks for here, this keeps a scale for each
    channel. No mode, optimiser or `requires_grad_` changes its numbers, and ``norm_eval`` is not
    needed. In eval mode it is an ordinary `torch.nn.functional.batch_norm`, which can be traced,
    exported and counted.

    For ``norm_cfg=dict(type='mmfish.FrozenBN')`` of any model of the OpenMMLab packages. Without
    the scope `FrozenBN` is MMDetection's own. The state dict is that of BatchNorm, so checkpoints
    go both ways. It is no subclass of BatchNorm, so that no conversion to SyncBN and no recomputing
    of statistics finds it.

    torchvision's and MMDetection's own hold as little for the backward pass, one number for each
    channel, where BatchNorm in eval mode holds 4 bytes for each element. But they multiply and add
    in two passes: with torch 2.11 on one CPU thread, 2x256x100x168 and 2x64x200x336 in single
    precision, either layout, their forward pass takes 1.6 to 2.0 times as long as this, and forward
    and backward pass with a ReLU 1.2 to 1.4 times.

    Args:
        num_features: channels.
        eps: added to the variance. Defaults to 1e-5.
        **of_batchnorm: other options in configs written for BatchNorm, such as ``momentum``. As in
            MMDetection's, nothing depends on them.
    """

    _abbr_ = 'bn'  # how MMCV names it within a model: as BatchNorm is named in checkpoints
    _version = nn.BatchNorm2d._version

    def __init__(self, num_features: int, eps: float = 1e-5, **of_batchnorm: Any) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer('weight', torch.ones(num_features))
        self.register_buffer('bias', torch.zeros(num_features))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        fixed = self.running_mean, self.running_var, self.weight, self.bias
        if self.training and torch.is_grad_enabled() and x.requires_grad:
            return _FixedAffine.apply(x, *fixed, self.eps)
        return F.batch_norm(x, *fixed, eps=self.eps)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f'{self.num_features}, eps={self.eps}'

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: dict,
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *args
        )
        # Some checkpoints have no counter, and nothing depends on it.
        counter = f'{prefix}num_batches_tracked'
        if counter in missing_keys:
            missing_keys.remove(counter)


class _FixedAffine(torch.autograd.Function):
    """BatchNorm in eval mode that keeps no input: the gradient of an affine does not need it."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(weight * (var + eps).rsqrt())
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        scale = scale.to(grad.dtype).view(-1, *[1] * (grad.dim() - 2))
        return grad * scale, None, None, None, None, None

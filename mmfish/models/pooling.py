"""Max-pooling that keeps little for the backward pass."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class MaxPool2d(nn.MaxPool2d):
    """`torch.nn.MaxPool2d` with the same results, for a tenth of its memory in training.

    For the backward pass PyTorch's keeps its input, of which only the shape is needed, and the
    index of each maximum in the image, as eight bytes. This one keeps the index within the window,
    as two bytes. In eval mode both are the same.

    Args:
        kernel_size: side of the window.
        stride: distance between windows. Defaults to ``kernel_size``.
        padding: on each side, at most half of ``kernel_size``. Defaults to 0.
    """

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0) -> None:
        super().__init__(kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ~H / stride, ~W / stride)."""
        window = self.kernel_size, self.stride, self.padding
        trains = self.training and torch.is_grad_enabled() and x.requires_grad
        # The largest index within a window has to fit into two bytes.
        if trains and x.shape[-1] * self.kernel_size < 2**15:
            return _MaxPool.apply(x, *window)
        return F.max_pool2d(x, *window)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, kernel_size: int, stride: int, padding: int) -> Tensor:
        y, where = F.max_pool2d(x, kernel_size, stride, padding, return_indices=True)
        ctx.window, ctx.shape = (kernel_size, stride, padding), x.shape
        ctx.channels_last = not x.is_contiguous()
        ctx.save_for_backward((where - _corners(where, ctx)).short())
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (within,) = ctx.saved_tensors
        kernel_size, stride, padding = ctx.window
        # The operator looks at the shape and layout of the input, not at its values.
        layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
        x = torch.empty(ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
        where = within + _corners(within, ctx)
        sizes = [kernel_size] * 2, [stride] * 2, [padding] * 2, [1, 1]
        grad = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *sizes, False, where)
        return grad, None, None, None


def _corners(where: Tensor, ctx: FunctionCtx) -> Tensor:
    """The flat index in the input of each window's upper left corner, (H', W')."""
    _, stride, padding = ctx.window
    rows, columns = (
        torch.arange(n, device=where.device) * stride - padding for n in where.shape[-2:]
    )
    return rows[:, None] * ctx.shape[-1] + columns

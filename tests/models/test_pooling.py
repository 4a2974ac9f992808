import pytest
import torch
from torch import nn

from mmfish.models.pooling import MaxPool2d

WINDOWS = [dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1)]


@pytest.mark.parametrize('window', WINDOWS, ids=str)
@pytest.mark.parametrize('size', [(2, 2), (7, 10), (16, 9)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_numbers_gradients_and_layout_are_those_of_pytorchs_layer(window, size, layout, dtype):
    results = []
    for pool in (nn.MaxPool2d(**window), MaxPool2d(**window)):
        # Few different numbers: the first of equal ones gets the gradient.
        x = torch.randint(0, 5, (2, 3, *size), generator=torch.Generator().manual_seed(0))
        x = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
        y = pool(x)
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        results.append((y, x.grad))
    (expected, gradient), (found, found_gradient) = results
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=layout)
    assert torch.equal(found_gradient, gradient)
    assert found_gradient.is_contiguous(memory_format=layout)


def test_rows_too_long_for_two_bytes():
    x = torch.zeros(1, 1, 2, 20000)
    x[..., 1, 1::2] = 1
    x.requires_grad_()
    MaxPool2d(2)(x).sum().backward()
    assert torch.equal(x.grad, x.detach())


@pytest.mark.parametrize('window', WINDOWS, ids=str)
def test_memory_that_is_kept_for_the_backward_pass(window):
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes), lambda t: t):
        y = MaxPool2d(**window)(x)
    assert sum(kept) == y.nbytes / 2

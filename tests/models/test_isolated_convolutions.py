"""No isolated convolution in body and head (section 3.2 of the paper)."""

import pytest
import torch
from tiny_arch import TINY
from torch import nn

from mmfish.models import FishNet
from mmfish.models.fishnet import Bottleneck

FEATURES = ('stem', 'tail.0', 'tail.1', 'tail.2', 'bridge')
FEATURES += tuple(f'body.{i}' for i in range(3)) + tuple(f'head.{i}.refine' for i in range(3))


def gradients_with_shortcuts_alone(net: FishNet) -> dict[str, float]:
    """Norms of the last level's gradient at each stage's output, with residual branches at zero.

    Whatever arrives then has passed through shortcuts, pooling, up-sampling and concatenation,
    and through convolutions that stand outside a residual branch.
    """
    for block in net.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.conv3.weight)
    kept = {}
    for name in FEATURES:
        net.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: (out.retain_grad(), kept.update({name: out}))[0]
        )
    level = net(torch.randn(2, 3, 64, 64))[-1]
    (level * torch.randn_like(level)).sum().backward()
    return {name: 0.0 if x.grad is None else float(x.grad.norm()) for name, x in kept.items()}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(**options) -> FishNet:
    net = FishNet(TINY, **options)
    net.init_weights()
    return net


@pytest.mark.parametrize('down_sample', ['max2', 'max3', 'avg2'])
def test_the_gradient_reaches_every_stage_without_any_residual_branch(down_sample):
    norms = gradients_with_shortcuts_alone(build(down_sample=down_sample))
    assert list(norms) == list(FEATURES)
    assert min(norms.values()) > 0, norms


def test_isolated_convolutions_in_the_head_can_stop_the_gradient():
    net = build(down_sample='conv')
    for stage in net.head:
        nn.init.zeros_(stage.down[2].weight)
    norms = gradients_with_shortcuts_alone(net)
    blocked = {name for name, norm in norms.items() if norm == 0}
    assert blocked == {
        'head.0.refine',
        'head.1.refine',
        'head.2.refine',
        *(f'body.{i}' for i in range(3)),
    }
    assert norms['bridge'] > 0  # its transfer goes around the head


@pytest.mark.parametrize(('down_sample', 'isolated'), [('max2', 0), ('conv', 3)])
def test_number_of_convolutions_outside_the_residual_branches(down_sample, isolated):
    with torch.device('meta'):
        net = FishNet('fishnet150', down_sample=down_sample)
    outside = [
        name
        for part in (net.body, net.head)
        for name, module in part.named_modules()
        if isinstance(module, nn.Conv2d) and not name.endswith(('conv1', 'conv2', 'conv3'))
    ]
    assert len(outside) == isolated

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS as MMDET
from mmpretrain.registry import MODELS as MMPRETRAIN
from tiny_arch import TINY
from torch import nn
from torch._inductor import config as inductor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

import mmfish
from mmfish.models import FishNet, FrozenBN
from mmfish.models.fusion import Clamp, split_up_sampling

DETECTOR = dict(
    type='mmdet.RetinaNet',
    backbone=dict(type='mmfish.FishNet', arch=TINY),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[40, 104, 200, 264],
        out_channels=8,
        num_outs=4,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        type='mmdet.RetinaSepBNHead',  # convolutions shared by the levels, norms not
        num_classes=3,
        num_ins=4,
        in_channels=8,
        feat_channels=8,
        stacked_convs=2,
        norm_cfg=dict(type='BN'),
        anchor_generator=dict(
            type='mmdet.AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[4, 8, 16, 32],
        ),
    ),
)
CLASSIFIER = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmfish.FishNet', arch=TINY, out_indices=(3,)),
    head=dict(type='mmfish.FishNetClsHead', num_classes=5, in_channels=264),
)


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(norm_cfg=dict(type='mmfish.FrozenBN')),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(down_sample='conv'),
        dict(stem='residual'),
        dict(stem='conv7x7', out_indices=(1, 2), with_cp=True),
    ],
    ids=str,
)
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_a_backbone_stays_the_same_function(options, layout):
    net = with_statistics(FishNet(TINY, **options)).to(memory_format=layout)
    assert_same(net, mmfish.fuse(net), torch.randn(2, 3, 72, 64))


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < '2.5', reason="torch 2.4's compiler fails on it by itself")
def test_compiled_with_its_weights_as_constants_it_stays_the_same_function():
    net = with_statistics(FishNet(TINY)).to(memory_format=torch.channels_last)
    torch.compiler.reset()
    compiled = torch.compile(mmfish.fuse(net))
    with inductor.patch(freezing=True):
        assert_same(net, compiled, torch.randn(1, 3, 64, 64))


def test_one_norm_layer_of_a_fishnet_remains():
    net = mmfish.fuse(FishNet(TINY))
    left = [name for name, m in net.named_modules() if isinstance(m, _BatchNorm)]
    assert left == ['bridge.gate.0']  # pooling is between it and the next convolution


def test_a_classifier_stays_the_same_function():
    net = with_statistics(MMPRETRAIN.build(CLASSIFIER))
    assert_same(net, mmfish.fuse(net), torch.randn(2, 3, 64, 64))


def test_a_detector_stays_the_same_function_with_shared_convolutions():
    net = with_statistics(MMDET.build(DETECTOR))
    assert_same(net, mmfish.fuse(net), torch.randn(1, 3, 64, 96))


@pytest.mark.parametrize(
    'config',
    [
        dict(type='mmdet.ResNet', depth=18, base_channels=8),
        dict(type='mmdet.HRNet', extra=None),
        dict(type='mmdet.Res2Net', depth=50, base_channels=8, base_width=8),
    ],
    ids=lambda config: config['type'],
)
def test_other_backbones_stay_the_same_function(config):
    if config['type'] == 'mmdet.HRNet':
        stage = dict(num_modules=1, block='BASIC')
        config = dict(
            config,
            extra=dict(
                stage1=dict(stage, num_branches=1, num_blocks=(1,), num_channels=(8,)),
                stage2=dict(stage, num_branches=2, num_blocks=(1,) * 2, num_channels=(8, 8)),
                stage3=dict(stage, num_branches=3, num_blocks=(1,) * 3, num_channels=(8,) * 3),
                stage4=dict(stage, num_branches=4, num_blocks=(1,) * 4, num_channels=(8,) * 4),
            ),
        )
    net = with_statistics(MMDET.build(config))
    fused = mmfish.fuse(net)
    assert_same(net, fused, torch.randn(1, 3, 64, 64))
    assert count_norms(fused) < count_norms(net)


@pytest.mark.parametrize(
    'options',
    [
        dict(order=('norm', 'conv', 'act')),
        dict(order=('conv', 'act', 'norm')),
        dict(conv_cfg=dict(type='ConvWS')),
    ],
    ids=str,
)
def test_what_cannot_be_folded_is_not_changed(options):
    layer = with_statistics(ConvModule(6, 6, 3, norm_cfg=dict(type='BN'), **options))
    fused = mmfish.fuse(layer)
    assert_same(layer, fused, torch.randn(2, 6, 5, 5))
    assert count_norms(fused) == 1


def test_the_model_given_is_not_changed():
    net = with_statistics(FishNet(TINY)).train()
    before = copy.deepcopy(net.state_dict())
    fused = mmfish.fuse(net)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m.training for m in fused.modules())
    assert not any(p.requires_grad for p in fused.parameters())


@pytest.mark.parametrize('norm', [nn.BatchNorm2d, FrozenBN])
@pytest.mark.parametrize('bias', [True, False])
def test_scales_of_every_sign(norm, bias):
    layers = nn.Sequential(norm(6), nn.ReLU(), nn.Conv2d(6, 4, 1, bias=bias)).eval()
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([1.5, -0.5, 0.0, 0.0, 1e-12, -1e-30]))
        layers[0].bias.copy_(torch.tensor([-1.0, 1.0, 2.0, -2.0, 1.0, 1.0]))
        layers[0].running_mean.normal_()
    fused = mmfish.fuse(layers)
    assert isinstance(fused[0], Clamp)
    assert_same(layers, fused, torch.randn(2, 6, 5, 5))


@pytest.mark.parametrize(
    ('size', 'divisor'), [((64, 96), 32), ((64, 96), 1), ((72, 50), 1)], ids=str
)
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(norm_cfg=dict(type='mmfish.FrozenBN')),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(out_indices=(1, 2), down_sample='conv'),
    ],
    ids=str,
)
def test_what_comes_before_up_sampling_may_come_after(options, size, divisor):
    net = with_statistics(FishNet(TINY, **options)).eval()
    split = split_up_sampling(copy.deepcopy(net), divisor)
    assert_same(net, split, torch.randn(1, 3, *size))


def test_a_fused_network_stays_as_it_is_behind_up_sampling():
    net = mmfish.fuse(with_statistics(FishNet(TINY)))
    split = split_up_sampling(copy.deepcopy(net), 32)
    assert_same(net, split, torch.randn(1, 3, 64, 96))


def test_less_is_computed_before_up_sampling():
    def macs(net):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(torch.randn(1, 3, 64, 64))
        return counter.get_total_flops()

    net = FishNet(TINY).eval()
    assert macs(split_up_sampling(copy.deepcopy(net))) < macs(net)


def assert_same(plain, fused, images):
    plain.eval()
    with torch.no_grad():
        pairs = list(zip(flat(plain(images)), flat(fused(images)), strict=True))
    for a, b in pairs:
        assert (a - b).abs().max() <= 1e-5 * a.abs().max()


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for output in outputs for tensor in flat(output)]


def count_norms(module):
    return sum(isinstance(m, _BatchNorm) for m in module.modules())


def with_statistics(module):
    """Fill BatchNorm with numbers like those of a trained network, a few scales negative."""
    for m in module.modules():
        if isinstance(m, _BatchNorm | FrozenBN):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                m.weight.uniform_(-0.2, 1.5)
                m.bias.normal_(0, 0.3)
    return module

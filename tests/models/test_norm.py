import copy

import pytest
import torch
from mmdet.registry import MODELS as MMDET
from mmengine.registry import MODELS as MMENGINE
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as MMPRETRAIN
from tiny_arch import TINY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parameters_to_vector

from mmfish.models import FishNet, FrozenBN

FROZEN = dict(type='mmfish.FrozenBN')


class TestNumbers:
    @pytest.mark.parametrize('shape', [(2, 6, 5, 7), (3, 6), (2, 6, 4)])
    def test_are_those_of_batch_norm_in_eval_mode(self, shape):
        bn, frozen = pair(dims=len(shape))
        x = torch.randn(shape, requires_grad=True)
        z = x.detach().clone().requires_grad_()
        weight = torch.randn(shape)
        for layer, images in ((bn, x), (frozen, z)):
            (layer(images) * weight).sum().backward()
        assert torch.equal(frozen(z), bn(x))
        torch.testing.assert_close(z.grad, x.grad)
        with torch.no_grad():
            assert torch.equal(frozen(z), bn(x))

    def test_the_gradient_is_that_of_the_function(self):
        _, frozen = pair(dims=4)
        x = torch.randn(2, 6, 3, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(frozen.double(), x)
        assert torch.autograd.gradgradcheck(frozen, x)

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_half_precision_stays_half_and_is_computed_in_single(self, dtype):
        bn, frozen = pair(dims=4)
        x = torch.randn(2, 6, 5, 7, dtype=dtype, requires_grad=True)
        y = frozen(x)
        y.sum().backward()
        assert y.dtype == x.grad.dtype == dtype
        assert torch.equal(y, bn(x.detach().float()).to(dtype))

    def test_layout_is_kept(self):
        x = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
        y = pair(dims=4)[1](x)
        assert y.is_contiguous(memory_format=torch.channels_last)


class TestFixed:
    def test_nothing_changes_it(self):
        frozen = pair(dims=4)[1]
        before = copy.deepcopy(frozen.state_dict())
        frozen.train().requires_grad_(True)
        x = torch.randn(2, 6, 4, 5, requires_grad=True)
        frozen(x).sum().backward()
        assert list(frozen.parameters()) == []
        assert all(buffer.grad is None for buffer in frozen.buffers())
        torch.testing.assert_close(frozen.state_dict(), before, rtol=0, atol=0)

    def test_conversion_to_sync_bn_leaves_it(self):
        net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(FrozenBN(3)))
        assert type(net[0]) is FrozenBN

    def test_a_pair_with_relu_keeps_the_relus_output_alone(self):
        x = torch.randn(1, 6, 32, 32, requires_grad=True)
        kept = set()

        def pack(tensor):
            kept.add((tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = torch.relu_(FrozenBN(6)(x))
        assert sum(size for _, size in kept) <= y.nbytes + 6 * 4


class TestCheckpoints:
    def test_load_exactly_in_both_directions(self):
        bn, frozen = pair(dims=4)
        bn.num_batches_tracked += 7
        saved = bn.state_dict()
        frozen.load_state_dict(saved)
        back = frozen.state_dict()
        assert list(back) == list(saved)
        assert back._metadata == saved._metadata
        fresh = nn.BatchNorm2d(6)
        fresh.load_state_dict(back)
        torch.testing.assert_close(fresh.state_dict(), saved, rtol=0, atol=0)

    def test_the_counter_may_be_missing_and_nothing_else(self):
        state_dict = nn.BatchNorm2d(6).state_dict()
        del state_dict['num_batches_tracked']
        FrozenBN(6).load_state_dict(state_dict, strict=True)
        for key in ('weight', 'bias', 'running_mean', 'running_var'):
            with pytest.raises(RuntimeError, match=f'Missing key.*{key}'):
                FrozenBN(6).load_state_dict({k: v for k, v in state_dict.items() if k != key})

    def test_a_fishnet_with_it_has_the_keys_of_one_with_batch_norm(self):
        plain, frozen = FishNet(TINY), FishNet(TINY, norm_cfg=FROZEN)
        plain.init_weights()
        frozen.load_state_dict(plain.state_dict(), strict=True)
        assert list(frozen.state_dict()) == list(plain.state_dict())
        torch.testing.assert_close(frozen.state_dict(), plain.state_dict(), rtol=0, atol=0)


class TestInModels:
    @pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmpretrain'])
    @pytest.mark.parametrize(
        ('registry', 'config'),
        [
            (MMENGINE, dict(type='FishNet', arch=TINY)),
            (MMDET, dict(type='mmdet.ResNet', depth=18, base_channels=8)),
            (
                MMPRETRAIN,
                dict(
                    type='mmpretrain.DenseNet',
                    arch=dict(growth_rate=8, depths=[2, 2], init_channels=8),
                    out_indices=(0, 1),
                ),
            ),
        ],
        ids=['mmfish', 'mmdet', 'mmpretrain'],
    )
    def test_it_takes_the_place_of_bn(self, registry, config, scope):
        norm = dict(type='BN', momentum=0.03, eps=1e-3, affine=True, requires_grad=True)
        with DefaultScope.overwrite_default_scope(scope):
            plain = registry.build(dict(config, norm_cfg=norm))
            frozen = registry.build(dict(config, norm_cfg=dict(norm, type='mmfish.FrozenBN')))
        plain.init_weights()
        plain.eval()
        frozen.load_state_dict(plain.state_dict(), strict=True)
        frozen.train()
        assert not any(isinstance(m, _BatchNorm) for m in frozen.modules())
        images = torch.randn(2, 3, 64, 64)
        for a, b in zip(plain(images), frozen(images), strict=True):
            torch.testing.assert_close(b, a)

    @pytest.mark.parametrize('frozen_stages', [-1, 0])
    def test_fishnet_trains_as_with_fixed_batch_norm(self, frozen_stages):
        fixed = FishNet(
            TINY, norm_cfg=dict(type='BN', requires_grad=False), frozen_stages=frozen_stages,
            norm_eval=True,
        )  # fmt: skip
        frozen = FishNet(TINY, norm_cfg=FROZEN, frozen_stages=frozen_stages)
        fixed.init_weights()
        frozen.init_weights()
        frozen.load_state_dict(fixed.state_dict())
        images = torch.randn(2, 3, 64, 64)
        gradients = []
        for net in (fixed.train(), frozen.train()):
            sum(level.square().mean() for level in net(images)).backward()
            trained = [p for p in net.parameters() if p.requires_grad]
            gradients.append(parameters_to_vector([p.grad for p in trained]))
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)

    def test_init_weights_leaves_the_identity(self):
        net = FishNet(TINY, norm_cfg=FROZEN)
        net.init_weights()
        x = torch.randn(1, 64, 3, 4)
        torch.testing.assert_close(net.bridge.score[0](x), x / (1 + 1e-5) ** 0.5)


def pair(dims):
    """BatchNorm in eval mode and a FrozenBN, with the same random numbers."""
    bn = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[dims](6).eval()
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        bn.weight.normal_()
        bn.bias.normal_()
    frozen = FrozenBN(6)
    frozen.load_state_dict(bn.state_dict())
    return bn, frozen

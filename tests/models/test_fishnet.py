import copy
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torch.utils.checkpoint
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.models.necks import FPN
from mmengine import ConfigDict
from slow_cases import slow_except
from tiny_arch import LITTLE, TINY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfish.models import ARCHS, FishFPN, FishHeadAdapter, FishNet, FishNetClsHead
from mmfish.models.archs import resolve_arch
from mmfish.models.fishnet import Bottleneck, reduce_channels

TINY_CHANNELS = (40, 104, 200, 264)
TWO_STAGES = ARCHS['fishnet55']
# The stages that frozen_stages counts, as prefixes of the parameters' names.
STAGES = (
    'stem.',
    'tail.0.',
    'tail.1.',
    'tail.2.',
    'bridge.',
    'body.0.',
    'body.1.',
    'body.2.',
    'head.0.',
    'head.1.',
    'head.2.',
)
ALL_OUT_INDICES = [indices for n in range(1, 5) for indices in combinations(range(4), n)]
OPTIONS = [
    dict(down_sample='max3'),
    dict(down_sample='avg2'),
    dict(down_sample='conv'),
    dict(dilation='none'),
    dict(dilation='body+head'),
    dict(stem='conv7x7'),
    dict(stem='residual'),
]


class TestLevels:
    @pytest.mark.parametrize(
        ('arch', 'channels'),
        [
            ('fishnet55', (32, 80, 112)),
            ('fishnet77', (80, 208, 400, 528)),
            ('fishnet99', (320, 832, 1600, 2112)),
            ('fishnet150', (320, 832, 1600, 2112)),
            ('fishnet201', (320, 832, 1600, 2112)),
            ('fishnext150', (320, 832, 1600, 2112)),
            ('fishnext229', (320, 832, 1600, 2112)),
            (TINY, TINY_CHANNELS),
        ],
    )
    def test_out_channels(self, arch, channels):
        with torch.device('meta'):
            assert FishNet(arch).out_channels == channels

    def test_default_arch_is_fishnet150(self):
        with torch.device('meta'):
            assert count(FishNet()) == count(FishNet('fishnet150'))

    @pytest.mark.parametrize('arch', ['fishnet77', TINY])
    def test_strides_and_out_channels_are_those_of_the_outputs(self, arch):
        net = FishNet(arch).eval()
        with torch.no_grad():
            levels = net(torch.randn(2, 3, 64, 96))
        assert [level.shape for level in levels] == [
            (2, c, 64 // stride, 96 // stride)
            for c, stride in zip(net.out_channels, (4, 8, 16, 32), strict=True)
        ]

    @pytest.mark.parametrize('down_sample', ['max2', 'max3', 'avg2', 'conv'])
    @pytest.mark.parametrize(
        ('size', 'rounded_down', 'rounded_up'),
        [
            (32, (8, 4, 2, 1), (8, 4, 2, 1)),
            (33, (9, 4, 2, 1), (9, 5, 3, 2)),
            (47, (12, 6, 3, 1), (12, 6, 3, 2)),
            (63, (16, 8, 4, 2), (16, 8, 4, 2)),
            (65, (17, 8, 4, 2), (17, 9, 5, 3)),
            (75, (19, 9, 4, 2), (19, 10, 5, 3)),
            (100, (25, 12, 6, 3), (25, 13, 7, 4)),
        ],
    )
    def test_sizes_of_the_levels_for_any_image_size_from_32(
        self, down_sample, size, rounded_down, rounded_up
    ):
        # The stem rounds up, 2x2 pooling down, and the kernels of 1 and 3 up.
        expected = rounded_down if down_sample in ('max2', 'avg2') else rounded_up
        net = FishNet(TINY, down_sample=down_sample).eval()
        with torch.no_grad():
            tall, wide = net(torch.randn(1, 3, size, 32)), net(torch.randn(1, 3, 32, size))
        assert [tuple(level.shape[2:]) for level in tall] == list(zip(expected, (8, 4, 2, 1)))  # noqa: B905
        assert [tuple(level.shape[2:]) for level in wide] == list(zip((8, 4, 2, 1), expected))  # noqa: B905

    def test_both_sizes_odd(self):
        with torch.no_grad():
            levels = FishNet(TINY).eval()(torch.randn(1, 3, 100, 75))
        assert [tuple(x.shape[2:]) for x in levels] == [(25, 19), (12, 9), (6, 4), (3, 2)]

    @pytest.mark.parametrize(('height', 'width'), [(31, 40), (40, 31), (16, 16), (1, 64)])
    def test_an_image_below_32_is_refused_with_its_size(self, height, width):
        with pytest.raises(ValueError, match=f'32x32.*{height}x{width}'):
            FishNet(TINY)(torch.randn(1, 3, height, width))

    @pytest.mark.parametrize('out_indices', ALL_OUT_INDICES)
    def test_every_layer_that_is_built_is_used_once(self, out_indices):
        net = FishNet(TINY, out_indices=out_indices, down_sample='conv')
        calls = []
        convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
        for conv in convs:
            conv.register_forward_hook(lambda module, args, output: calls.append(module))
        levels = net(torch.randn(2, 3, 64, 64))
        sum((level * torch.randn_like(level)).sum() for level in levels).backward()

        assert len(calls) == len(set(calls)) == len(convs)
        assert [name for name, p in net.named_parameters() if p.grad is None] == []
        assert net.out_channels == tuple(TINY_CHANNELS[i] for i in out_indices)
        assert tuple(level.shape[1] for level in levels) == net.out_channels

    def test_nothing_beyond_the_last_level_is_built(self):
        names = {
            last: {
                name.split('.')[1] + '.' + name.split('.')[2]
                for name, _ in FishNet(TINY, out_indices=(last,)).named_parameters()
                if name.startswith('head.')
            }
            for last in range(4)
        }
        assert names[0] == {'0.refine'}
        assert names[1] == {'0.refine', '0.transfer', '1.refine'}
        assert names[2] == names[1] | {'1.transfer', '2.refine'}
        assert names[3] == names[2] | {'2.transfer'}

    @pytest.mark.parametrize('out_indices', ALL_OUT_INDICES)
    def test_fewer_levels_are_those_of_the_whole_network(self, out_indices):
        whole = with_statistics(FishNet(TINY)).eval()
        part = FishNet(TINY, out_indices=out_indices).eval()
        weights = whole.state_dict()
        part.load_state_dict(weights, strict=True)
        assert weights.keys() == whole.state_dict().keys()  # nothing was taken out of it
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            every, some = whole(images), part(images)
        for level, i in zip(some, out_indices, strict=True):
            assert torch.equal(level, every[i])

    def test_levels_are_raw_sums(self):
        with torch.no_grad():
            levels = FishNet(TINY).eval()(torch.randn(1, 3, 64, 64))
        assert all(level.min() < 0 < level.max() for level in levels)


class TestWithCp:
    @pytest.mark.parametrize(
        'options',
        [
            dict(),
            dict(frozen_stages=2),
            dict(norm_eval=True),
            dict(frozen_stages=0, norm_eval=True, out_indices=(1, 2)),
            dict(norm_cfg=dict(type='GN', num_groups=2)),
        ],
        ids=str,
    )
    def test_outputs_gradients_and_statistics_stay_the_same(self, options):
        plain = FishNet(TINY, **options)
        plain.init_weights()
        cheap = FishNet(TINY, with_cp=True, **options)
        cheap.load_state_dict(plain.state_dict())
        images = torch.randn(2, 3, 64, 64)
        results = []
        for net in (plain.train(), cheap.train()):
            for _ in range(2):  # the second step works on the first one's statistics
                levels = net(images)
                net.zero_grad()
                sum(level.square().mean() for level in levels).backward()
            results.append((levels, {n: p.grad for n, p in net.named_parameters()}))

        (levels, gradients), (cheap_levels, cheap_gradients) = results
        for level, cheap_level in zip(levels, cheap_levels, strict=True):
            torch.testing.assert_close(cheap_level, level)
        torch.testing.assert_close(cheap_gradients, gradients)
        assert any(gradient is not None and gradient.any() for gradient in gradients.values())
        torch.testing.assert_close(dict(cheap.named_buffers()), dict(plain.named_buffers()))

    def test_a_step_updates_the_statistics_once(self):
        net = FishNet(TINY, with_cp=True)
        sum(level.sum() for level in net(torch.randn(2, 3, 64, 64))).backward()
        for name, buffer in net.named_buffers():
            if name.endswith('num_batches_tracked'):
                assert buffer == 1, name
        net(torch.randn(2, 3, 64, 64))
        assert net.body[0].refine[0].bn1.num_batches_tracked == 2

    def test_backward_may_run_twice_through_a_retained_graph(self):
        net = FishNet(TINY, with_cp=True)
        loss = sum(level.square().mean() for level in net(torch.randn(2, 3, 64, 64)))
        loss.backward(retain_graph=True)
        first = net.stem[0].weight.grad.clone()
        loss.backward()
        torch.testing.assert_close(net.stem[0].weight.grad, 2 * first)

    def test_backward_holds_less_memory(self):
        images = torch.randn(2, 3, 128, 128)
        plain, cheap = (
            bytes_for_backward(FishNet('fishnet77', with_cp=cp), images) for cp in (False, True)
        )
        assert cheap < 0.6 * plain

    def test_nothing_is_recomputed_in_eval_mode_or_without_gradients(self):
        net = FishNet(TINY, with_cp=True)
        images = torch.randn(2, 3, 64, 64)
        held = bytes_for_backward(net, images)
        net.eval()
        assert bytes_for_backward(net, images) > 1.5 * held
        with torch.no_grad():
            assert not any(level.requires_grad for level in net(images))


class TestFrozen:
    @pytest.mark.parametrize('frozen_stages', range(-1, 11))
    def test_which_parameters_and_statistics_are_frozen(self, frozen_stages):
        net = FishNet(TINY, frozen_stages=frozen_stages)
        frozen = STAGES[: frozen_stages + 1]
        for step in ('built', 'train', 'eval and train'):
            if step == 'eval and train':
                net.eval()
                assert not any(m.training for m in net.modules())
            if step != 'built':
                net.train()
            for name, parameter in net.named_parameters():
                assert name.startswith(STAGES)
                assert parameter.requires_grad != name.startswith(frozen), (step, name)
            for name, module in net.named_modules():
                if isinstance(module, _BatchNorm):
                    assert module.training != name.startswith(frozen), (step, name)

    @pytest.mark.parametrize('frozen_stages', range(-1, 11))
    def test_a_step_changes_the_next_stage_and_nothing_before(self, frozen_stages):
        net = with_statistics(FishNet(TINY, frozen_stages=frozen_stages)).train()
        before = copy.deepcopy(net.state_dict())
        head = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in net.out_channels)
        optimizer = torch.optim.SGD(
            [*net.parameters(), *head.parameters()], lr=0.1, momentum=0.9, weight_decay=1e-2
        )
        levels = net(torch.randn(2, 3, 64, 64))
        sum(conv(x).square().sum() for conv, x in zip(head, levels, strict=True)).backward()
        optimizer.step()

        after = net.state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        frozen = STAGES[: frozen_stages + 1]
        assert [name for name in changed if name.startswith(frozen)] == []
        for stage in STAGES[frozen_stages + 1 :]:
            of_stage = {name for name in after if name.startswith(stage)}
            assert of_stage
            assert of_stage <= changed

    def test_frozen_stages_beyond_the_last_freeze_everything(self):
        net = FishNet(TINY, out_indices=(0,), frozen_stages=10)
        assert not any(p.requires_grad for p in net.parameters())

    @pytest.mark.parametrize('frozen_stages', [-1, 0, 3, 6])
    def test_frozen_stages_and_norm_eval_do_not_make_frozen_bn_hold_more(self, frozen_stages):
        def held(**options):
            net = FishNet(TINY, norm_cfg=dict(type='mmfish.FrozenBN'), **options).train()
            return bytes_for_backward(net, torch.randn(2, 3, 64, 64))

        frozen = held(frozen_stages=frozen_stages)
        assert held(frozen_stages=frozen_stages, norm_eval=True) == frozen
        assert frozen == held() if frozen_stages == -1 else frozen < held()

    def test_norm_eval_keeps_statistics_and_trains_weights(self):
        net = with_statistics(FishNet(TINY, norm_eval=True)).train()
        before = copy.deepcopy(dict(net.named_buffers()))
        sum(level.square().mean() for level in net(torch.randn(2, 3, 64, 64))).backward()
        assert before
        for name, buffer in net.named_buffers():
            assert torch.equal(buffer, before[name]), name
        assert all(p.grad is not None for p in net.parameters())
        assert net.training
        assert net.body[0].training

    def test_without_norm_eval_all_statistics_are_updated(self):
        net = FishNet(TINY).train()
        before = copy.deepcopy(dict(net.named_buffers()))
        net(torch.randn(2, 3, 64, 64))
        for name, buffer in net.named_buffers():
            assert not torch.equal(buffer, before[name]), name

    def test_train_returns_the_network(self):
        net = FishNet(TINY)
        assert net.train() is net
        assert net.eval() is net


class TestOptions:
    def test_strided_convolutions_add_what_the_paper_states(self):
        # Table 2: 30.2M instead of 26.4M. Six of them, with the BatchNorm before each.
        channels = (128, 256, 512, 320, 832, 1600)
        with torch.device('meta'):
            more = count(FishNet(down_sample='conv')) - count(FishNet())
        assert more == sum(c * c + 2 * c for c in channels)
        assert more / 1e6 == pytest.approx(3.8, abs=0.1)

    @pytest.mark.parametrize('down_sample', ['max2', 'max3', 'avg2', 'conv'])
    def test_down_sample_is_what_its_name_says_in_tail_and_head(self, down_sample):
        net = with_statistics(FishNet(TINY, down_sample=down_sample)).eval()
        seen = {}
        for i in range(3):
            for name, module in ((f'tail {i}', net.tail[i][-1]), (f'head {i}', net.head[i].down)):
                module.register_forward_hook(
                    lambda module, args, output, name=name: seen.update(
                        {name: (module, args[0], output)}
                    )
                )
        with torch.no_grad():
            net(torch.randn(1, 3, 72, 72))
        assert len(seen) == 6
        for module, x, y in seen.values():
            if down_sample == 'max2':
                expected = F.max_pool2d(x, 2)
            elif down_sample == 'max3':
                expected = F.max_pool2d(x, 3, stride=2, padding=1)
            elif down_sample == 'avg2':
                expected = F.avg_pool2d(x, 2)
            else:
                bn, _, conv = module
                expected = F.conv2d(batch_norm(x, bn).clamp(min=0), conv.weight)[..., ::2, ::2]
            torch.testing.assert_close(y, expected)

    @pytest.mark.parametrize(
        ('dilation', 'body', 'head'),
        [('none', 1, 1), ('body', (1, 2, 4), 1), ('body+head', (1, 2, 4), (8, 4, 2))],
    )
    def test_dilation_doubles_with_the_resolution(self, dilation, body, head):
        net = FishNet(TINY, dilation=dilation)
        for part, expected in ((net.body, body), (net.head, head)):
            found = [{b.conv2.dilation[0] for b in stage.refine} for stage in part]
            assert found == [{d} for d in (expected if expected != 1 else (1, 1, 1))]
        rest = [net.tail, net.bridge, *(stage.transfer for stage in (*net.body, *net.head))]
        assert {
            block.conv2.dilation
            for part in rest
            for block in part.modules()
            if isinstance(block, Bottleneck)
        } == {(1, 1)}

    def test_dilation_changes_numbers_not_sizes_or_weights(self):
        nets = {kind: FishNet(TINY, dilation=kind) for kind in ('none', 'body', 'body+head')}
        weights = with_statistics(nets['body']).state_dict()
        images = torch.randn(1, 3, 64, 64)
        levels = {}
        for kind, net in nets.items():
            net.load_state_dict(weights)
            with torch.no_grad():
                levels[kind] = net.eval()(images)
        for a, b in combinations(levels.values(), 2):
            for level_a, level_b in zip(a, b, strict=True):
                assert level_a.shape == level_b.shape
                assert not torch.allclose(level_a, level_b)

    @pytest.mark.parametrize(
        ('stem', 'parameters'),
        [
            ('conv3x3', 9 * (3 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64)),
            ('conv7x7', 49 * 3 * 64 + 2 * 64),
            # Two blocks of two 3x3 convolutions, and a 1x1 convolution on the first's shortcut.
            ('residual', 9 * (3 * 64 + 3 * 64 * 64) + 3 * 64 + 2 * (4 * 64 + 64)),
        ],
    )
    def test_stem_has_the_convolutions_that_it_is_named_for(self, stem, parameters):
        with torch.device('meta'):
            assert count(FishNet('fishnet99', stem=stem).stem) == parameters

    @pytest.mark.parametrize('size', [32, 33, 47, 100])
    def test_every_stem_leaves_a_quarter_of_the_resolution(self, size):
        shapes = [
            FishNet(TINY, stem=stem).stem(torch.randn(2, 3, size, size)).shape
            for stem in ('conv3x3', 'conv7x7', 'residual')
        ]
        assert shapes == [(2, 8, -(-size // 4), -(-size // 4))] * 3

    @pytest.mark.parametrize('options', OPTIONS, ids=str)
    def test_an_option_trains_and_keeps_the_levels(self, options):
        net = FishNet(TINY, **options)
        levels = net(torch.randn(2, 3, 64, 64))
        sum(level.square().mean() for level in levels).backward()
        assert all(p.grad is not None for p in net.parameters())
        assert [tuple(x.shape) for x in levels] == [
            (2, c, s, s) for c, s in zip(TINY_CHANNELS, (16, 8, 4, 2), strict=True)
        ]

    @pytest.mark.parametrize('stem', ['conv3x3', 'conv7x7', 'residual'])
    @pytest.mark.parametrize('in_channels', [1, 4])
    def test_in_channels(self, stem, in_channels):
        net = FishNet(TINY, stem=stem, in_channels=in_channels)
        assert net(torch.randn(2, in_channels, 64, 64))[0].shape == (2, 40, 16, 16)

    @pytest.mark.parametrize(
        ('norm_cfg', 'layer'),
        [
            (dict(type='BN'), nn.BatchNorm2d),
            (dict(type='SyncBN'), nn.SyncBatchNorm),
            (dict(type='GN', num_groups=2), nn.GroupNorm),
        ],
    )
    @pytest.mark.parametrize('options', [{}, *OPTIONS], ids=str)
    def test_norm_cfg_reaches_every_norm_layer(self, norm_cfg, layer, options):
        net = FishNet(TINY, norm_cfg=norm_cfg, **options).eval()
        norms = [m for m in net.modules() if isinstance(m, (_BatchNorm, nn.GroupNorm))]
        assert norms
        assert all(isinstance(m, layer) for m in norms)
        with torch.no_grad():
            assert all(x.isfinite().all() for x in net(torch.randn(1, 3, 64, 64)))

    def test_norm_cfg_can_fix_the_affine_parameters(self):
        net = FishNet(TINY, norm_cfg=dict(type='BN', requires_grad=False, eps=1e-3))
        norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
        learned = {id(p) for p in net.parameters() if p.requires_grad}
        assert {id(p) for m in norms for p in m.parameters()}.isdisjoint(learned)
        assert {id(p) for m in net.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()}
        assert len(learned) > 0
        assert {m.eps for m in norms} == {1e-3}


class TestArch:
    @pytest.mark.parametrize('form', [dict, ConfigDict, 'lists'])
    def test_a_dict_is_as_good_as_a_name(self, form):
        entry = ARCHS['fishnet55']
        if form == 'lists':
            entry = {
                part: {f: list(v) if isinstance(v, tuple) else v for f, v in fields.items()}
                if isinstance(fields, dict)
                else fields
                for part, fields in entry.items()
            }
            form = dict
        named, spelled = FishNet('fishnet55').eval(), FishNet(form(entry)).eval()
        spelled.load_state_dict(named.state_dict(), strict=True)
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            for a, b in zip(named(images), spelled(images), strict=True):
                assert torch.equal(a, b)

    def test_two_stages(self):
        net = FishNet(TWO_STAGES)
        levels = net(torch.randn(2, 3, 28, 16))
        assert net.out_channels == (32, 80, 112)
        assert [tuple(x.shape) for x in levels] == [
            (2, 32, 7, 4),
            (2, 80, 3, 2),
            (2, 112, 1, 1),
        ]
        sum(level.square().mean() for level in levels).backward()
        assert all(p.grad is not None for p in net.parameters())
        with pytest.raises(ValueError, match=r'16x16.*15x16'):
            net(torch.randn(1, 3, 15, 16))

    def test_small_stem_keeps_the_resolution(self):
        net = FishNet('fishnet77', stem='small')
        with torch.no_grad():
            levels = net(torch.randn(1, 3, 56, 40))
        assert [level.shape[2:] for level in levels] == [(56, 40), (28, 20), (14, 10), (7, 5)]
        assert count(net) == count(FishNet('fishnet77'))
        with pytest.raises(ValueError, match=r'8x8.*7x8'):
            net(torch.randn(1, 3, 7, 8))

    def test_fishnext229_is_named_as_the_released_networks_are(self):
        # Three layers a block and 12 more; one more with the residual stem.
        def blocks(arch):
            tail, bridge, body, head = (
                ARCHS[arch][part] for part in ('tail', 'bridge', 'body', 'head')
            )
            stages = tail['blocks'] + body['blocks'] + head['blocks']
            return sum(stages + body['transfers'] + head['transfers']) + bridge['blocks']

        for depth in (99, 150, 201):
            assert 3 * blocks(f'fishnet{depth}') + 12 == depth
        assert 3 * blocks('fishnext229') + 13 == 229

    @pytest.mark.parametrize('frozen_stages', [7, 8])
    def test_frozen_stages_ends_with_the_head_of_two_stages(self, frozen_stages):
        options = dict(frozen_stages=frozen_stages)
        if frozen_stages == 8:
            with pytest.raises(ValueError, match=r'frozen_stages.*-1\.\.7, got 8'):
                FishNet(TWO_STAGES, **options)
        else:
            assert not any(p.requires_grad for p in FishNet(TWO_STAGES, **options).parameters())

    def test_fishnext150_has_the_parameters_of_its_layout(self):
        with torch.device('meta'):
            net = FishNet('fishnext150')
            assert count(net) + count(FishNetClsHead()) == 25_738_024

    def test_group_width_doubles_with_the_stride(self):
        net = FishNet({**TINY, 'group_width': 1, 'expansion': 2})
        found = {
            name: conv.in_channels // conv.groups
            for name, conv in net.named_modules()
            if isinstance(conv, nn.Conv2d) and name.endswith('conv2')
        }
        # Where each part works: the stage itself, and the transfer from beside it.
        expected = {
            'tail.0.': 1,
            'tail.1.': 2,
            'tail.2.': 4,
            'bridge.': 8,
            'body.0.refine.': 8,
            'body.0.transfer.': 4,
            'body.1.refine.': 4,
            'body.1.transfer.': 2,
            'body.2.refine.': 2,
            'body.2.transfer.': 1,
            'head.0.refine.': 1,
            'head.0.transfer.': 2,
            'head.1.refine.': 2,
            'head.1.transfer.': 4,
            'head.2.refine.': 4,
            'head.2.transfer.': 8,
        }
        assert {p for p in expected if any(name.startswith(p) for name in found)} == set(expected)
        for name, group in found.items():
            assert group == next(g for p, g in expected.items() if name.startswith(p)), name

    @pytest.mark.parametrize(('expansion', 'width'), [(1, 64), (2, 32), (4, 16), (8, 8)])
    def test_expansion_sets_the_width(self, expansion, width):
        block = FishNet({**TINY, 'expansion': expansion}).tail[2][0][0]
        assert block.conv2.weight.shape[:2] == (width, width)

    def test_every_entry_of_the_table_is_complete(self):
        for name, entry in ARCHS.items():
            assert resolve_arch(entry) == resolve_arch(name)


class TestInit:
    @pytest.mark.parametrize('stem', ['conv3x3', 'conv7x7', 'residual'])
    def test_init_weights(self, stem):
        torch.manual_seed(0)
        arch = {**ARCHS['fishnet77'], 'group_width': 1}
        net = nn.ModuleList([FishNet(arch, stem=stem, down_sample='conv'), FishNetClsHead(10, 528)])
        for part in net:
            part.init_weights()
        scaled = []
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                k, _ = module.kernel_size
                expected = np.sqrt(2 / (k * k * module.out_channels))
                n = module.weight.numel()
                # Five times the standard error of a standard deviation from n numbers.
                assert module.weight.std().item() == pytest.approx(
                    expected, rel=5 / np.sqrt(2 * n)
                ), name
                assert module.bias is None or not module.bias.any(), name
                scaled.append(module.weight.flatten() / expected)
            elif isinstance(module, _BatchNorm):
                assert (module.weight == 1).all(), name
                assert (module.bias == 0).all(), name
                assert (module.running_mean == 0).all(), name
                assert (module.running_var == 1).all(), name
        scaled = torch.cat(scaled)
        assert scaled.std().item() == pytest.approx(1, abs=0.005)
        # Normal, not uniform: 4.55 % lie beyond two standard deviations.
        assert (scaled.abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=0.002)

    def test_init_cfg_replaces_it(self):
        net = FishNet(TINY, init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
        net.init_weights()
        assert all((m.weight == 0.5).all() for m in net.modules() if isinstance(m, nn.Conv2d))

    def test_zero_init_residual_makes_each_block_its_shortcut(self):
        net = FishNet(TINY, zero_init_residual=True)
        net.init_weights()
        net.eval()
        x = torch.randn(2, TINY['stem'], 8, 8)
        block = net.tail[0][0][0]
        torch.testing.assert_close(block(x), block.shortcut(x), rtol=0, atol=0)
        # Nothing else is zero, and every block has a way for its gradient.
        zero = {name for name, p in net.named_parameters() if 'conv' in name and not p.any()}
        assert zero == {name for name, _ in net.named_parameters() if name.endswith('conv3.weight')}
        sum(level.square().mean() for level in net.train()(torch.randn(2, 3, 64, 64))).backward()
        assert all(p.grad.any() for name, p in net.named_parameters() if name in zero)

    def test_zero_init_residual_leaves_loaded_weights_alone(self, tmp_path):
        source = FishNet(TINY)
        source.init_weights()
        torch.save(source.state_dict(), tmp_path / 'net.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth'))
        net = FishNet(TINY, zero_init_residual=True, init_cfg=init_cfg)
        net.init_weights()
        assert all(
            torch.equal(a, b) for a, b in zip(net.parameters(), source.parameters(), strict=True)
        )


class TestErrors:
    def test_an_unknown_arch_lists_the_known_ones(self):
        with pytest.raises(ValueError, match='fishnet100') as error:
            FishNet('fishnet100')
        assert all(name in str(error.value) for name in ARCHS)

    @pytest.mark.parametrize('arch', [150, None, ('fishnet150',)])
    def test_an_arch_that_is_neither_name_nor_dict_is_refused(self, arch):
        with pytest.raises(ValueError, match=f'arch.*{type(arch).__name__}'):
            FishNet(arch)

    @pytest.mark.parametrize('field', ['stem', 'tail', 'bridge', 'body', 'head'])
    def test_a_missing_part_is_named(self, field):
        arch = {key: value for key, value in TINY.items() if key != field}
        with pytest.raises(ValueError, match=f"arch lacks .*'{field}'"):
            FishNet(arch)

    @pytest.mark.parametrize(
        ('part', 'field'),
        [
            ('tail', 'channels'),
            ('tail', 'blocks'),
            ('bridge', 'blocks'),
            ('body', 'channels'),
            ('body', 'blocks'),
            ('body', 'transfers'),
            ('head', 'blocks'),
            ('head', 'transfers'),
        ],
    )
    def test_a_missing_or_malformed_field_is_named(self, part, field):
        def arch(**changed):
            return {**TINY, part: {k: v for k, v in TINY[part].items() if k != field} | changed}

        with pytest.raises(ValueError, match=rf"arch\['{part}'\] lacks .*'{field}'"):
            FishNet(arch())
        numbers = [0, -1, 2.0, '2', None, True]
        if part == 'bridge':
            wrong = [*numbers, (2,)]
        else:
            wrong = [*((2, 2, number) for number in numbers), 2, None, (), 'abc']
        for value in wrong:
            with pytest.raises(ValueError, match=rf"arch\['{part}'\]\['{field}'\]"):
                FishNet(arch(**{field: value}))

    @pytest.mark.parametrize(
        ('part', 'field'),
        [
            ('tail', 'blocks'),
            ('body', 'channels'),
            ('body', 'blocks'),
            ('body', 'transfers'),
            ('head', 'blocks'),
            ('head', 'transfers'),
        ],
    )
    @pytest.mark.parametrize('values', [(8, 8), (8, 8, 8, 8)])
    def test_a_field_with_the_wrong_number_of_stages_is_named(self, part, field, values):
        arch = {**TINY, part: {**TINY[part], field: values}}
        message = rf"arch\['{part}'\]\['{field}'\] has {len(values)} entries, expected 3"
        with pytest.raises(ValueError, match=message):
            FishNet(arch)

    @pytest.mark.parametrize('field', ['stem', 'expansion', 'group_width'])
    @pytest.mark.parametrize('value', [0, -4, 4.0, '4', (4,)])
    def test_a_number_out_of_range_is_named(self, field, value):
        with pytest.raises(ValueError, match=rf"arch\['{field}'\]"):
            FishNet({**TINY, field: value})

    @pytest.mark.parametrize('part', ['tail', 'bridge', 'body', 'head'])
    def test_a_part_that_is_not_a_dict_is_named(self, part):
        with pytest.raises(ValueError, match=rf"arch\['{part}'\] must be a dict"):
            FishNet({**TINY, part: (1, 2, 3)})

    def test_unknown_fields_are_named(self):
        with pytest.raises(ValueError, match="'neck'"):
            FishNet({**TINY, 'neck': 1})
        with pytest.raises(ValueError, match=r"arch\['bridge'\].*'channels'"):
            FishNet({**TINY, 'bridge': dict(blocks=1, channels=64)})

    @pytest.mark.parametrize('out_indices', [(), (4,), (-1,), (0, 4), (1, 0), (0, 0, 1), (0, 1, 1)])
    def test_out_indices(self, out_indices):
        with pytest.raises(ValueError, match=r'out_indices.*0\.\.3') as error:
            FishNet(TINY, out_indices=out_indices)
        assert str(out_indices) in str(error.value)

    def test_out_indices_of_two_stages(self):
        with pytest.raises(ValueError, match=r'out_indices.*0\.\.2 \(.* after 2 times'):
            FishNet(TWO_STAGES, out_indices=(0, 1, 2, 3))

    @pytest.mark.parametrize('frozen_stages', [-2, 11])
    def test_frozen_stages(self, frozen_stages):
        with pytest.raises(ValueError, match=rf'frozen_stages.*-1\.\.10, got {frozen_stages}'):
            FishNet(TINY, frozen_stages=frozen_stages)

    @pytest.mark.parametrize(
        ('channels', 'level', 'c_out', 'c_in'),
        [((48, 48, 32), 3, 48, 64), ((64, 40, 32), 2, 40, 96), ((64, 48, 36), 1, 36, 64)],
    )
    def test_a_reduction_that_does_not_divide(self, channels, level, c_out, c_in):
        message = rf"arch\['body'\]\['channels'\].* {c_out} at level {level}.* {c_in} channels"
        with pytest.raises(ValueError, match=message):
            FishNet({**TINY, 'body': {**TINY['body'], 'channels': channels}})

    def test_an_expansion_that_does_not_divide(self):
        with pytest.raises(ValueError, match=r"arch\['expansion'\] = 3 .* 16 channels .* level 0"):
            FishNet({**TINY, 'expansion': 3})

    def test_a_group_width_that_does_not_divide(self):
        with pytest.raises(ValueError, match=r"arch\['group_width'\] = 3 .* of 3 .* 4 wide"):
            FishNet({**TINY, 'group_width': 3})
        # Here it divides at stride 4 (10 wide) and 8 (26 wide), but not where it has doubled twice.
        with pytest.raises(ValueError, match=r"arch\['group_width'\] = 2 .* of 8 .* level 2.* 100"):
            FishNet({**TINY, 'group_width': 2, 'expansion': 2})

    @pytest.mark.parametrize(
        ('option', 'known'),
        [
            ('down_sample', ('max2', 'max3', 'avg2', 'conv')),
            ('dilation', ('none', 'body', 'body+head')),
            ('stem', ('conv3x3', 'conv7x7', 'residual', 'small')),
        ],
    )
    def test_an_unknown_choice_lists_the_known_ones(self, option, known):
        with pytest.raises(ValueError, match=f'{option}.*wrong') as error:
            FishNet(TINY, **{option: 'wrong'})
        assert all(choice in str(error.value) for choice in known)


class TestFuseConvBn:
    @pytest.mark.parametrize('options', [{}, *OPTIONS], ids=str)
    def test_outputs_stay(self, options):
        net = with_statistics(FishNet(TINY, **options)).eval()
        head = with_statistics(FishNetClsHead(10, in_channels=264)).eval()
        fused, fused_head = (fuse_conv_bn(copy.deepcopy(part)) for part in (net, head))
        images = torch.randn(2, 3, 72, 64)
        with torch.no_grad():
            expected, found = net(images), fused(images)
            pairs = [*zip(expected, found, strict=True), (head(expected), fused_head(found))]
        for a, b in pairs:
            assert (a - b).abs().max() <= 1e-5 * a.abs().max()

        def norms(module):
            return sum(isinstance(m, _BatchNorm) for m in module.modules())

        blocks = sum(isinstance(m, Bottleneck) for m in net.modules())
        # Two in each block, one before the bridge's second convolution, and those of the stem.
        stem = norms(net.stem)
        assert norms(net) - norms(fused) == 2 * blocks + 1 + stem
        assert norms(head) - norms(fused_head) == 1


class TestChannelsLast:
    @pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='mmfish.FrozenBN')], ids=str)
    @pytest.mark.parametrize('training', [True, False])
    def test_every_layer_keeps_the_layout_of_the_weights(self, norm_cfg, training):
        net = FishNet(TINY, norm_cfg=norm_cfg).train(training)
        images = torch.randn(2, 3, 72, 64)
        expected = net(images)
        net.to(memory_format=torch.channels_last)
        wrong = []

        def check(name):
            def hook(module, args, output):
                for tensor in output if isinstance(output, tuple) else (output,):
                    if not tensor.is_contiguous(memory_format=torch.channels_last):
                        wrong.append(name)

            return hook

        for name, module in net.named_modules():
            if not isinstance(module, nn.ModuleList):
                module.register_forward_hook(check(name))
        levels = net(images)
        assert wrong == []
        for level, other in zip(levels, expected, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize('k', [2, 3])
    def test_the_reduction_keeps_the_layout_forward_and_backward(self, k, layout):
        x = torch.randn(2, 12, 3, 5).contiguous(memory_format=layout).requires_grad_()
        gradients = []
        x.register_hook(gradients.append)
        y = reduce_channels(x, k)
        (y * torch.arange(12 // k).view(-1, 1, 1)).sum().backward()
        assert y.is_contiguous(memory_format=layout)
        assert gradients[0].is_contiguous(memory_format=layout)
        expected = torch.arange(12).div(k, rounding_mode='floor').view(-1, 1, 1).expand(2, 12, 3, 5)
        assert torch.equal(gradients[0], expected.float())
        assert torch.equal(y, reduce_channels(x.contiguous(), k))


@pytest.mark.slow
class TestCompile:
    @pytest.mark.parametrize(('norm', 'training'), [('BN', False), ('mmfish.FrozenBN', True)])
    def test_one_graph_with_the_same_numbers(self, norm, training):
        torch.compiler.reset()
        net = FishNet(LITTLE, norm_cfg=dict(type=norm)).train(training)
        images = torch.randn(2, 3, 64, 64)
        with torch.set_grad_enabled(training):
            expected = copy.deepcopy(net)(images)
            compiled = torch.compile(net, backend='eager', fullgraph=True)
            levels = compiled(images)
        for level, other in zip(levels, expected, strict=True):
            torch.testing.assert_close(level, other)

    @pytest.mark.parametrize(
        'options',
        [
            dict(),
            dict(norm_cfg=dict(type='mmfish.FrozenBN')),
            dict(norm_eval=True, frozen_stages=1),
        ],
        ids=str,
    )
    def test_with_cp_steps_and_statistics_stay_the_same(self, options):
        torch.compiler.reset()
        plain = FishNet(LITTLE, **options).train()
        cheap = FishNet(LITTLE, with_cp=True, **options).train()
        cheap.load_state_dict(plain.state_dict())
        compiled = torch.compile(cheap, backend='aot_eager', fullgraph=True)
        for _ in range(2):  # the second step works on the first one's statistics
            images = torch.randn(2, 3, 64, 64)
            for net, call in ((plain, plain), (cheap, compiled)):
                net.zero_grad()
                sum(level.square().mean() for level in call(images)).backward()
            for name, parameter in cheap.named_parameters():
                torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad)
        assert cheap.body[0].refine[0].conv2.weight.grad.any()
        torch.testing.assert_close(dict(cheap.named_buffers()), dict(plain.named_buffers()))

    @pytest.mark.parametrize(
        'neck',
        [
            lambda channels: FPN(channels, 8, num_outs=4),
            lambda channels: FishFPN(in_channels=channels, out_channels=8, num_outs=4),
            lambda channels: FishHeadAdapter(channels, [c // 2 for c in channels], 'sum'),
        ],
        ids=['FPN', 'FishFPN', 'FishHeadAdapter'],
    )
    def test_one_graph_with_a_neck(self, neck):
        torch.compiler.reset()
        net = FishNet(LITTLE)
        net = nn.Sequential(net, neck(list(net.out_channels))).eval()
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            levels = torch.compile(net, backend='eager', fullgraph=True)(images)
            for level, other in zip(levels, net(images), strict=True):
                torch.testing.assert_close(level, other)


class TestAutocast:
    @pytest.mark.parametrize('norm_cfg', [dict(type='BN'), dict(type='mmfish.FrozenBN')], ids=str)
    @pytest.mark.parametrize('training', [True, False])
    @pytest.mark.parametrize(
        'dtype', slow_except([torch.bfloat16], [torch.bfloat16, torch.float16])
    )
    def test_levels_and_gradients_are_near_those_of_single_precision(
        self, norm_cfg, training, dtype
    ):
        net = FishNet(TINY, norm_cfg=norm_cfg).train(training)
        net.init_weights()
        images = torch.randn(4, 3, 64, 64)
        single = net(images)
        with torch.autocast('cpu', dtype):
            half = net(images)
        for a, b in zip(single, half, strict=True):
            assert (a - b).norm() < 0.2 * a.norm()
        sum(level.float().square().mean() for level in half).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())
        assert net.stem[0].weight.grad.any()


class TestReduceChannels:
    @pytest.mark.parametrize('k', [1, 2, 3, 6])
    def test_is_equation_8(self, k):
        x = torch.randn(2, 12, 3, 5)
        z = torch.zeros(2, 12 // k, 3, 5)
        for n in range(12 // k):
            for j in range(k):
                z[:, n] += x[:, k * n + j]
        torch.testing.assert_close(reduce_channels(x, k), z)


class TestBottleneck:
    @pytest.mark.parametrize('training', [True, False])
    @pytest.mark.parametrize(
        ('c_in', 'c_out', 'reduce'), [(12, 12, False), (12, 8, False), (12, 6, True)]
    )
    @pytest.mark.parametrize(('groups', 'dilation'), [(1, 1), (2, 1), (1, 3)])
    def test_is_a_pre_activation_bottleneck(self, training, c_in, c_out, reduce, groups, dilation):
        block = Bottleneck(
            c_in,
            c_out,
            width=4,
            groups=groups,
            dilation=dilation,
            reduce=reduce,
            norm_cfg=dict(type='BN'),
        )
        with_statistics(block).train(training)
        reference = copy.deepcopy(block)
        x = torch.randn(2, c_in, 7, 6)
        given = x.clone()

        def activate(x, bn):
            return batch_norm(x, bn).clamp(min=0)

        y = F.conv2d(activate(x, reference.bn1), reference.conv1.weight)
        y = F.conv2d(
            activate(y, reference.bn2),
            reference.conv2.weight,
            padding=dilation,
            dilation=dilation,
            groups=groups,
        )
        y = F.conv2d(activate(y, reference.bn3), reference.conv3.weight)
        if reduce:
            y = y + x[:, 0::2] + x[:, 1::2]
        elif c_in == c_out:
            y = y + x
        else:
            bn, _, conv = reference.shortcut
            y = y + F.conv2d(activate(x, bn), conv.weight)

        assert y.shape == (2, c_out, 7, 6)
        torch.testing.assert_close(block(x), y)
        assert torch.equal(x, given)  # nothing was computed in place


def count(module):
    return sum(p.numel() for p in module.parameters())


def with_statistics(module):
    """Fill BatchNorm with numbers like those of a trained network."""
    for m in module.modules():
        if isinstance(m, _BatchNorm):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_(0, 0.3)
    return module


def batch_norm(x, bn):
    """BatchNorm, written out from its definition."""
    if bn.training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    else:
        mean, var = bn.running_mean, bn.running_var
    mean, var, weight, bias = (v.view(-1, 1, 1) for v in (mean, var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * weight + bias


def bytes_for_backward(net, images):
    """The bytes that autograd keeps from a forward pass, without parameters, buffers and images."""
    own = {t.untyped_storage().data_ptr() for t in [*net.parameters(), *net.buffers(), images]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        levels = net(images)
    total = sum(kept.values())
    assert levels[0].requires_grad
    return total

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mmdet.registry import MODELS
from torch import nn

from mmfish.models import FishFPN, FishHeadAdapter, FishNet

CHANNELS = [80, 208, 400, 528]  # fishnet77


def levels(channels=CHANNELS, batch=1):
    generator = torch.Generator().manual_seed(0)
    sizes = [16 // 2**i for i in range(len(channels))]
    return [
        10 * torch.randn(batch, c, size, size, generator=generator)
        for c, size in zip(channels, sizes, strict=True)
    ]


def test_levels_are_normalised_and_activated_image_by_image():
    outputs = FishHeadAdapter(CHANNELS)(levels(batch=2))
    for x, y in zip(levels(batch=2), outputs, strict=True):
        groups = x.reshape(2, 16, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        expected = (centred / groups.var(-1, correction=0, keepdim=True).add(1e-5).sqrt()).relu()
        torch.testing.assert_close(y, expected.reshape(x.shape))


def test_the_default_norm_divides_the_channels_of_every_arch():
    adapter = FishHeadAdapter([320, 832, 1600, 2112, 80, 24])
    assert [level[0].num_groups for level in adapter.levels] == [32, 32, 32, 32, 16, 8]


def test_norm_is_configurable():
    adapter = FishHeadAdapter(CHANNELS, norm_cfg=dict(type='BN', requires_grad=False))
    assert all(isinstance(level[0], nn.BatchNorm2d) for level in adapter.levels)
    assert not any(p.requires_grad for p in adapter.parameters())


def test_conv_brings_levels_to_widths_and_leaves_those_that_have_theirs():
    adapter = FishHeadAdapter(CHANNELS, out_channels=[256, 208, 1024, 33])
    assert [y.shape[1] for y in adapter(levels())] == [256, 208, 1024, 33]
    assert len(adapter.levels[1]) == 2
    # norm-ReLU-conv: the convolution comes last.
    x = levels()[0]
    norm, _, conv = adapter.levels[0]
    torch.testing.assert_close(adapter(levels())[0], conv(F.relu(norm(x))))


def test_one_width_for_all_levels():
    assert [y.shape[1] for y in FishHeadAdapter(CHANNELS, 64)(levels())] == [64] * 4


def test_sum_adds_adjacent_channels_before_the_norm_without_parameters_of_its_own():
    adapter = FishHeadAdapter(CHANNELS, out_channels=[40, 52, 100, 528], reduction='sum')
    plain = FishHeadAdapter([40, 52, 100, 528])
    summed = [
        torch.stack([x[:, i::k] for i in range(k)]).sum(0)
        for x, k in zip(levels(), (2, 4, 4, 1), strict=True)
    ]
    for y, expected in zip(adapter(levels()), plain(summed), strict=True):
        torch.testing.assert_close(y, expected)
    assert adapter.state_dict().keys() == plain.state_dict().keys()


def test_sum_refuses_widths_that_do_not_divide():
    with pytest.raises(ValueError, match='208 channels of level 1, got 100'):
        FishHeadAdapter(CHANNELS, out_channels=[40, 100, 100, 528], reduction='sum')


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match='4 entries'):
        FishHeadAdapter(CHANNELS, out_channels=[256, 512])
    with pytest.raises(ValueError, match="conv, sum, got 'mean'"):
        FishHeadAdapter(CHANNELS, reduction='mean')


def test_fish_fpn_is_adapter_and_fpn():
    torch.manual_seed(0)
    both = FishFPN('fishnet77', out_channels=32)
    chain = MODELS.build(
        [
            dict(type='mmfish.FishHeadAdapter', in_channels=CHANNELS),
            dict(type='FPN', in_channels=CHANNELS, out_channels=32, num_outs=5),
        ]
    )
    fpn = {k: v for k, v in both.state_dict().items() if not k.startswith('adapter.')}
    chain[1].load_state_dict(fpn)
    for ours, theirs in zip(both(levels()), chain(tuple(levels())), strict=True):
        assert ours.shape[1] == 32
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('arch', ['fishnet77', 'fishnet150'])
def test_fish_fpn_takes_every_level_of_its_arch(arch):
    with torch.device('meta'):
        backbone = FishNet(arch)
        neck = MODELS.build(dict(type='mmfish.FishFPN', arch=arch))
        outputs = neck(backbone(torch.empty(1, 3, 64, 64)))
    assert [tuple(y.shape) for y in outputs] == [(1, 256, s, s) for s in (16, 8, 4, 2, 1)]


def test_fish_fpn_takes_the_levels_that_it_is_told():
    neck = FishFPN(in_channels=CHANNELS[1:], out_channels=16, num_outs=4)
    assert len(neck(levels(CHANNELS[1:]))) == 4

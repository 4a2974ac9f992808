import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mmdet.registry import MODELS
from mmengine.config import Config
from slow_cases import slow_except
from torch import nn

from mmfish.config.levels import Levels, levels_read, model_registry
from mmfish.models import FishFPN, FishHeadAdapter, FishNet

CHANNELS = [80, 208, 400, 528]  # fishnet77
# The neck layouts of MMDetection's configs, with few channels: tests/data/README.md.
LAYOUTS = {
    layout['config']: layout
    for layout in json.loads(
        (Path(__file__).parents[1] / 'data/neck_layouts.json').read_text(),
        # Some necks compare their order of layers with tuples; JSON has none.
        object_hook=lambda d: d | {k: tuple(d[k]) for k in d if k == 'order'},
    )
}


def levels(channels=CHANNELS, batch=1, size=16):
    generator = torch.Generator().manual_seed(0)
    sizes = [size // 2**i for i in range(len(channels))]
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


def test_conv_changes_only_levels_that_have_another_width():
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


def test_fish_fpn_takes_the_given_levels():
    neck = FishFPN(in_channels=CHANNELS[1:], out_channels=16, num_outs=4)
    assert len(neck(levels(CHANNELS[1:]))) == 4


def test_levels_outside_of_start_and_end_pass_through_without_parameters():
    adapter = FishHeadAdapter(CHANNELS, out_channels=64, start_level=1, end_level=2)
    assert [bool(list(level.parameters())) for level in adapter.levels] == [
        False,
        True,
        True,
        False,
    ]
    inputs = levels()
    outputs = adapter(inputs)
    assert outputs[0] is inputs[0]
    assert outputs[3] is inputs[3]
    assert [y.shape[1] for y in outputs[1:3]] == [64, 64]


@pytest.mark.parametrize('ends', [dict(start_level=4), dict(end_level=4), dict(start_level=-1)])
def test_a_start_or_end_level_that_does_not_exist_is_refused(ends):
    with pytest.raises(ValueError, match=r'start_level and end_level must be levels of 0\.\.3'):
        FishHeadAdapter(CHANNELS, **ends)


def without_gradient(necks, channels):
    """Names of the parameters that get no gradient from the outputs of the last neck."""
    inputs = levels(channels, batch=2, size=32)
    modules = nn.Sequential(*(MODELS.build(copy.deepcopy(neck)) for neck in necks)).eval()
    sum(y.square().sum() for y in modules(tuple(inputs))).backward()
    return [name for name, p in modules.named_parameters() if p.requires_grad and p.grad is None]


# FPG has many more layers than all others.
@pytest.mark.parametrize('config', slow_except([c for c in LAYOUTS if 'fpg' not in c], LAYOUTS))
def test_every_parameter_of_adapter_and_neck_gets_a_gradient(config):
    layout = LAYOUTS[config]
    for neck in layout['neck']:
        if MODELS.get(neck['type']) is None:
            pytest.skip(f'this MMDetection has no {neck["type"]}')
    channels = [16, 24, 32, 40][-layout['levels'] :]
    strides = (4, 8, 16, 32)[-layout['levels'] :]
    with model_registry(Config()) as registry:
        read = levels_read(layout['neck'], Levels(tuple(channels), strides), registry)
    if read is None:
        # The control: without the adapter it does not compute either.
        with pytest.raises(RuntimeError, match='implementation for device cpu not found'):
            without_gradient(layout['neck'], channels)
        pytest.skip('MMCV has an operator of this neck for GPUs only')
    adapter = dict(
        type='mmfish.FishHeadAdapter',
        in_channels=channels,
        start_level=read.start,
        end_level=read.stop - 1,
    )
    assert without_gradient([adapter, *layout['neck']], channels) == []
    first, *others = layout['neck']
    if first['type'] == 'FPN':
        assert without_gradient([{**first, 'type': 'mmfish.FishFPN'}, *others], channels) == []


def test_every_parameter_of_fish_fpn_with_an_end_level_gets_a_gradient():
    options = dict(out_channels=16, num_outs=2, start_level=1, end_level=2)
    neck = dict(type='mmfish.FishFPN', in_channels=CHANNELS, **options)
    assert without_gradient([neck], CHANNELS) == []


@pytest.mark.slow
def test_two_ranks_train_retinanet_with_adapter_and_with_fish_fpn():
    command = [sys.executable, Path(__file__).with_name('two_ranks.py')]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert 'trained FishFPN' in process.stdout

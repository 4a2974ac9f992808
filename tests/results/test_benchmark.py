import json

import pytest
import torch
from torch import nn

from mmfish.errors import UsageError
from mmfish.models import FishNet
from mmfish.results.benchmark import (
    Measurement,
    benchmark,
    bytes_held,
    convolutions,
    plot,
    save_json,
    table,
)

RUN = [
    Measurement('A', 2.0, 1.0, 3 * 10**9, 2**21, None, [1.0, 2.0, 3.0]),
    Measurement('FishNet B', 1.0, 0.8, 2 * 10**9, 2**20, None, [1.0]),
]


def test_bytes_held_counts_storages_once_and_no_weights():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1, bias=False))
    x = torch.randn(1, 1, 8, 8)
    # The input, and the ReLU's output that is the second convolution's input as well.
    assert bytes_held(net, lambda: net(x)) == x.nbytes + 2 * x.nbytes


def test_a_fishnet_with_frozen_bn_holds_far_less():
    images = torch.randn(1, 3, 128, 128)
    plain = FishNet('fishnet77', norm_eval=True).train()
    lean = FishNet('fishnet77', norm_cfg=dict(type='FrozenBN')).train()
    held = [bytes_held(net, lambda net=net: net(images)) for net in (plain, lean)]
    assert held[1] < 0.6 * held[0]


@pytest.mark.parametrize('training', [True, False])
def test_convolutions_run_alone_at_the_same_shapes_and_layout(training):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1, groups=2))
    net.to(memory_format=torch.channels_last)
    calls, macs = convolutions(net, lambda: net(torch.randn(2, 3, 6, 5)), training)
    assert macs == 2 * 6 * 5 * (4 * 27 + 8 * 2)
    seen = []
    for conv in (net[0], net[2]):
        conv.register_forward_pre_hook(
            lambda module, args: pytest.fail('no hooks in what is timed')
        )
    for call in calls:
        conv, x, backward = call.args
        seen.append(x.shape)
        assert backward == training
        call()
    assert seen == [(2, 3, 6, 5), (2, 4, 6, 5)]
    assert calls[1].args[1].is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.grad is None


@pytest.mark.parametrize(
    ('kind', 'step', 'arch', 'size'),
    [
        ('backbone', 'inference', 'fishnet77', 32),
        ('backbone', 'training', 'fishnet77', 32),
        ('classifier', 'training', 'fishnet77', 64),
        ('detector', 'inference', 'fishnet77', 64),
        ('detector', 'training', 'fishnet77', 64),
    ],
)
def test_a_run_measures_its_contestants(kind, step, arch, size):
    mode = 'fused, channels-last' if step == 'inference' else 'FrozenBN, channels-last, with_cp'
    (ours,) = benchmark(
        kind, step, arch, size=(size, size), rounds=2, names=[f'FishNet-77, {mode}']
    )
    assert len(ours.rounds) == 2
    assert ours.seconds > ours.floor > 0
    assert ours.macs > 10**6
    assert (ours.bytes_held is None) == (step == 'inference')


def test_an_unknown_contestant_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r'VGG.*FishNet-150, FrozenBN;.*DenseNet-161'):
        benchmark(step='training', names=['VGG'])


def test_table_json_and_plots(tmp_path):
    lines = table(RUN, 'A').splitlines()
    assert lines[2] == '| A | 3.0 | 2.000 | 1.00 | 2.00 | 2 | 1.00 |'
    assert lines[3] == '| FishNet B | 2.0 | 1.000 | 0.50 | 1.25 | 1 | 0.50 |'
    save_json(tmp_path / 'a' / 'b.json', [dict(batch=1, measurements=RUN)], 'cpu')
    content = json.loads((tmp_path / 'a' / 'b.json').read_text())
    assert content['runs'][0]['measurements'][1]['macs'] == 2 * 10**9
    assert torch.__version__ in content['environment']
    assert plot(RUN, tmp_path / 'plot.png').stat().st_size > 1000

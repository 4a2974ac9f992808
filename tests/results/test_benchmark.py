import pytest
import torch
from torch import nn

from mmfish.errors import UsageError
from mmfish.results.benchmark import (
    BASELINE,
    Measurement,
    Run,
    _peak,
    benchmark,
    convolutions,
    load_json,
    plot,
    save_json,
    table,
)

RUN = Run(
    'backbone',
    'training',
    'fishnet77',
    1,
    (32, 64),
    False,
    [
        Measurement(
            BASELINE['backbone'], 2.0, 1.0, 3 * 10**9, 2**21, 3 * 2**20, [1.0, 2.0, 3.0], {'a': 1.0}
        ),
        Measurement('FishNet B', 1.0, 0.8, 2 * 10**9, 2**20, 2**20, [1.0], {'b': 0.5}),
    ],
)


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
    ],
)
def test_a_run_measures_its_contestants(kind, step, arch, size):
    mode = 'fused, channels-last' if step == 'inference' else 'FrozenBN, channels-last, with_cp'
    run = benchmark(kind, step, arch, size=(size, size), rounds=2, names=[f'FishNet-77, {mode}'])
    (ours,) = run.measurements
    assert len(ours.rounds) == 2
    assert ours.seconds > ours.floor > 0
    assert ours.macs > 10**6
    assert (ours.bytes_held is None) == (step == 'inference')
    assert ours.peak_bytes >= 0
    assert any('conv' in operator for operator in ours.profile)


def test_the_peak_is_what_a_step_takes_at_most():
    taken = _peak(lambda: torch.ones(3, 2**23).sum(), torch.device('cpu'))
    # Three numbers of 4 bytes each, or little more; and the kernel counts in pages.
    assert taken == pytest.approx(3 * 4 * 2**23, rel=0.01)


def test_an_unknown_contestant_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r'VGG.*FishNet-150, FrozenBN;.*DenseNet-161'):
        benchmark(step='training', names=['VGG'])


def test_table_json_and_plots(tmp_path):
    lines = table(RUN).splitlines()
    assert lines[2] == '| pytorchcv FishNet-150 | 3.0 | 2.000 | 1.00 | 2.00 | 2 | 1.00 | 3 |'
    assert lines[3] == '| FishNet B | 2.0 | 1.000 | 0.50 | 1.25 | 1 | 0.50 | 1 |'
    save_json(tmp_path / 'a' / 'b.json', [RUN], 'cpu')
    where, runs = load_json(tmp_path / 'a' / 'b.json')
    assert runs == [RUN]
    assert torch.__version__ in where
    assert plot(RUN, tmp_path / 'plot.png').stat().st_size > 1000

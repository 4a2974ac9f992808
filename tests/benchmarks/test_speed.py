import argparse
import json
import runpy
import subprocess
import sys

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.speed import (
    BASELINE,
    Measurement,
    Run,
    _builders,
    _contestant,
    _peak,
    benchmark,
    contestants,
    convolutions,
    load_json,
    plot,
    save_json,
    table,
)
from mmfish.errors import UsageError

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
    assert ours.peak_bytes > (ours.bytes_held or 0)
    assert any('conv' in operator for operator in ours.profile)


def test_the_peak_is_what_a_step_takes_at_most():
    taken = _peak(lambda: torch.ones(3, 2**23).sum(), torch.device('cpu'))
    assert 0 <= taken - 3 * 4 * 2**23 < 64  # and the sum


@pytest.mark.parametrize('name', ['FishNet-77, BN', 'ResNet-50', 'HRNet-W32', 'DenseNet-161'])
def test_batchnorm_is_fixed_in_every_training(name):
    build = _builders('backbone', 'training', 'fishnet77')[name]
    contestant = _contestant(name, build, 'backbone', 'training', (1, 3, 64, 64), 'cpu')
    norms = [m for m in contestant.model.modules() if isinstance(m, _BatchNorm)]
    assert len(norms) > 50
    assert not any(norm.training for norm in norms)


def test_resnet_has_the_modes_too():
    build = _builders('detector', 'training', 'fishnet77')['ResNet-50, FrozenBN, channels-last']
    with DefaultScope.overwrite_default_scope('mmdet'):
        model, treatment = build()
    assert treatment == dict(channels_last=True)
    assert type(model.backbone.bn1).__name__ == 'FrozenBN'
    assert model.backbone.frozen_stages == 1


def test_detectors_are_not_compiled():
    assert 'FishNet-77, compiled' in contestants('backbone', 'inference', 'fishnet77')
    assert 'FishNet-77, compiled' not in contestants('detector', 'inference', 'fishnet77')


@pytest.mark.parametrize('wrong', [dict(rounds=0), dict(batch=0), dict(size=(0, 64))], ids=str)
def test_nothing_to_measure_is_said_before_anything_is_done(wrong):
    with pytest.raises(UsageError, match='must be at least 1, got'):
        benchmark(**wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_named():
    with pytest.raises(UsageError, match='finds no GPU for --device cuda'):
        benchmark(device='cuda')


def test_the_command(tmp_path):
    command = [sys.executable, 'tools/benchmark.py', '--keep-memory', '--rounds', '1']
    command += ['--arch', 'fishnet77', '--contestants', 'FishNet-77, fused, channels-last']
    command += ['--size', '64x96', '--json', str(tmp_path / 'out.json')]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 'backbone, inference, fishnet77, batch 1, 64x96' in printed
    (run,) = json.loads((tmp_path / 'out.json').read_text())['runs']
    assert run['keep_memory']
    assert run['size'] == [64, 96]


def test_a_size_that_is_none_is_said():
    with pytest.raises(argparse.ArgumentTypeError, match="expected HxW, as 800x1344, got '800'"):
        runpy.run_path('tools/benchmark.py')['_size']('800')


def test_an_unknown_contestant_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r'VGG.*FishNet-150, FrozenBN;.*DenseNet-161;'):
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

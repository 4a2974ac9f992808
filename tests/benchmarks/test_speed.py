import argparse
import runpy
import subprocess
import sys

import pytest
import torch
from mmengine.registry import DefaultScope
from slow_cases import slow_except
from torch import nn

from benchmarks import speed
from benchmarks.speed import (
    RELEASED,
    Measurement,
    Setting,
    _builders,
    _network,
    _peak,
    benchmark,
    convolutions,
    network_names,
    plot,
    read_csv,
    table,
)
from mmfish.errors import UsageError

TRAINING = Setting(step='training', arch='fishnet77', height=64, width=64)
RUN = {
    RELEASED: Measurement(2.0, 1.0, 3 * 10**9, 3 * 2**20, 2**21),
    'FishNet B': Measurement(1.0, 0.8, 2 * 10**9, 2**20, 2**20),
}


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
    ('kind', 'step'),
    slow_except(
        [('backbone', 'inference')],
        [('backbone', 'inference'), ('backbone', 'training'), ('detector', 'inference')],
    ),
)
def test_a_benchmark_measures_its_networks(kind, step):
    mode = 'fused, channels-last' if step == 'inference' else 'FrozenBN, channels-last, with_cp'
    name = f'FishNet-77, {mode}'
    run = benchmark(Setting(kind, step, 'fishnet77', 1, 64, 64), [name], rounds=2)
    assert list(run) == [name]
    ours = run[name]
    assert min(ours.seconds, ours.lower_bound) > 0  # which is larger depends on the load
    assert ours.macs > 10**6
    assert (ours.activation_bytes > 0) == (step == 'training')
    assert ours.peak_bytes > ours.activation_bytes
    assert any('conv' in operator for operator in ours.operators)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['backbone', 'classifier', 'detector'])
def test_exported_files_are_measured_beside_their_model(kind):
    setting = Setting(kind, 'exported', 'fishnet77', height=64, width=96, threads=1)
    names = [f'FishNet-77, {mode}' for mode in ('ONNX Runtime', 'OpenVINO, bf16')]
    names.append('FishNet-77, plain' if kind == 'detector' else 'ResNet-50, ONNX Runtime')
    run = benchmark(setting, names, rounds=1)
    assert set(run) == set(names)
    assert run[names[0]].macs == run[names[1]].macs
    for name, measured in run.items():
        assert measured.seconds > 0
        assert measured.lower_bound > 0
        assert any('conv' in operator.lower() for operator in measured.operators), name


def test_the_peak_is_the_most_memory_of_a_step():
    taken = _peak(lambda: torch.ones(3, 2**23).sum(), torch.device('cpu'))
    assert 0 <= taken - 3 * 4 * 2**23 < 64  # and the sum


@pytest.mark.parametrize('name', ['FishNet-77, BN', 'ResNet-50', 'HRNet-W32', 'DenseNet-161'])
def test_batchnorm_is_fixed_in_every_training(name):
    network = _network(name, _builders(TRAINING)[name], TRAINING, 'cpu')
    norms = [m for m in network.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 50
    assert not any(norm.training for norm in norms)


def test_resnet_is_measured_in_the_same_modes():
    name = 'ResNet-50, FrozenBN, channels-last'
    with DefaultScope.overwrite_default_scope('mmdet'):
        build, treatment = _builders(Setting('detector', 'training'))[name]
        model = build()
    assert treatment == dict(channels_last=True)
    assert type(model.backbone.bn1).__name__ == 'FrozenBN'
    assert model.backbone.frozen_stages == 1


def test_detectors_are_not_compiled():
    assert 'FishNet-150, compiled' in network_names(Setting('backbone'))
    assert 'FishNet-150, compiled' not in network_names(Setting('detector'))


@pytest.mark.parametrize('wrong', [dict(batch=0), dict(height=0)], ids=str)
def test_empty_measurements_are_refused(wrong):
    with pytest.raises(UsageError, match='must be at least 1, got'):
        benchmark(Setting(**wrong))
    with pytest.raises(UsageError, match='must be at least 1, got'):
        benchmark(Setting(), rounds=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_missing_gpu_is_named():
    with pytest.raises(UsageError, match='finds no GPU for --device cuda'):
        benchmark(Setting(), device='cuda')


@pytest.mark.slow
def test_the_tool_measures_and_writes_csv(tmp_path):
    command = [sys.executable, 'tools/benchmark.py', '--keep-memory', '--rounds', '1']
    command += ['--arch', 'fishnet77', '--contestants', 'FishNet-77, fused, channels-last']
    command += ['--size', '64x96', '--csv', str(tmp_path / 'out.csv')]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 'backbone, inference, fishnet77, batch 1, 64x96' in printed
    _, runs = read_csv(tmp_path / 'out.csv')
    setting = Setting(arch='fishnet77', height=64, width=96, keep_memory=True)
    assert {setting: ['FishNet-77, fused, channels-last']} == {k: list(v) for k, v in runs.items()}


def test_an_invalid_size_is_named():
    with pytest.raises(argparse.ArgumentTypeError, match="expected HxW, as 800x1344, got '800'"):
        runpy.run_path('tools/benchmark.py')['_size']('800')


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setattr(speed, 'find_spec', lambda name: None if name == 'openvino' else True)
    with pytest.raises(UsageError, match='`pip install openvino`'):
        benchmark(Setting(step='exported'))


def test_an_unknown_network_is_named_with_the_known_ones():
    with pytest.raises(UsageError, match=r'VGG.*FishNet-150, FrozenBN;.*DenseNet-161;'):
        benchmark(Setting(step='training'), ['VGG'])


def test_table_and_plot(tmp_path):
    lines = table(Setting(step='training'), RUN).splitlines()
    assert lines[2] == '| pytorchcv FishNet-150 | 3.0 | 2.000 | 1.00 | 2.00 | 2 | 1.00 | 3 |'
    assert lines[3] == '| FishNet B | 2.0 | 1.000 | 0.50 | 1.25 | 1 | 0.50 | 1 |'
    assert plot(RUN, tmp_path / 'plot.png').stat().st_size > 1000

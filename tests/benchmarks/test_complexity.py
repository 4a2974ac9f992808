import pytest
import torch
from mmdet.models import ResNet
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from benchmarks.complexity import (
    build_classifier,
    build_model,
    complexity,
    complexity_table,
    parameter_count,
)
from benchmarks.published import load_published
from demo import CONFIGS
from mmfish.errors import UsageError
from mmfish.models import ARCHS

RELEASED = ('fishnet99', 'fishnet150', 'fishnet201')


@pytest.mark.parametrize(
    ('arch', 'parameters'),
    [
        ('fishnet99', 16_628_904),
        ('fishnet150', 24_959_400),
        ('fishnet201', 44_584_552),
        ('fishnext150', 25_738_024),
    ],
)
def test_parameters_are_exact(arch, parameters):
    with torch.device('meta'):
        assert parameter_count(build_classifier(arch)) == parameters


def test_the_data_file_has_the_released_numbers():
    rows = load_published()['complexity']['rows']
    assert [rows[arch]['parameters'] for arch in RELEASED] == [16628904, 24959400, 44584552]
    assert [rows[arch]['gflops'] for arch in RELEASED] == [4.31, 6.45, 10.58]


def test_flops_of_fishnet150_are_the_published_ones():
    counts = complexity(build_classifier('fishnet150'))
    assert round(counts.flops / 1e9, 2) == 6.45
    assert counts.parameters == 24_959_400


@pytest.mark.parametrize('arch', ['fishnet55', 'fishnet77'])
def test_macs_are_half_of_what_torch_counts_as_flops(arch):
    counts = complexity(build_classifier(arch), (64, 96))
    with torch.device('meta'), FlopCounterMode(display=False) as by_torch:
        build_classifier(arch).eval()(torch.empty(1, 3, 64, 96))
    assert 2 * counts.macs == by_torch.get_total_flops()
    assert 0 < counts.elementwise < counts.macs / 5


def test_a_detector_is_counted_from_its_config():
    config = str(CONFIGS / 'mask_rcnn_fishnet77_fpn_shapes.py')
    model = build_model(config)
    counts = complexity(model, (64, 96))
    backbone = complexity(build_classifier('fishnet77'), (64, 96))
    assert counts.parameters == parameter_count(model)
    assert counts.macs > backbone.macs


def test_a_backbone_of_mmdetection_is_counted():
    # Its eval() returns nothing.
    counts = complexity(ResNet(18), (64, 64))
    assert counts.parameters == sum(p.numel() for p in resnet18().parameters()) - 513_000  # fc


def test_the_table_shows_counts_beside_published():
    header, _, row = complexity_table(['fishnet55'], (64, 64)).splitlines()
    assert header.count('|') == row.count('|') == 7
    assert '| 118,752 |' in row


def test_every_arch_has_a_classifier():
    with torch.device('meta'):
        assert all(parameter_count(build_classifier(arch)) for arch in ARCHS)


@pytest.mark.parametrize('name', ['fishnet1', 'configs/none.py'])
def test_an_unknown_model_is_refused_by_name(name):
    with pytest.raises(UsageError, match=name):
        build_model(name)


def test_an_image_too_small_is_refused():
    with pytest.raises(UsageError, match='at least 32x32'):
        complexity(build_classifier('fishnet77'), (16, 16))

"""In eval mode the network consists of ordinary layers for every tool that traces it."""

import io
import operator

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from slow_cases import slow_except
from tiny_arch import LITTLE

from mmfish.models import FishNet

OPTIONS = [
    dict(),
    dict(norm_cfg=dict(type='mmfish.FrozenBN')),
    dict(with_cp=True),
    dict(down_sample='max3', norm_cfg=dict(type='mmfish.FrozenBN'), with_cp=True),
]


@pytest.mark.parametrize('options', slow_except(OPTIONS[:1], OPTIONS), ids=str)
def test_a_jit_trace_is_saved_and_loaded_with_the_same_outputs(options):
    net = FishNet(LITTLE, **options).eval()
    images = torch.randn(2, 3, 64, 64)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, images), file)
    file.seek(0)
    levels = torch.jit.load(file)(images)
    for level, expected in zip(levels, net(images), strict=True):
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize('options', slow_except(OPTIONS[:1], OPTIONS), ids=str)
def test_an_exported_graph_has_aten_operators_alone_and_the_same_outputs(options):
    net = FishNet(LITTLE, **options).eval()
    images = torch.randn(2, 3, 64, 64)
    program = torch.export.export(net, (images,))
    targets = [node.target for node in program.graph.nodes if node.op == 'call_function']
    assert len(targets) > 100
    # torch 2.4 has an operator for BatchNorm in eval mode of which one output is picked.
    allowed = {operator.getitem} if torch.__version__ < '2.5' else set()
    assert {target for target in targets if not str(target).startswith('aten.')} <= allowed
    for level, expected in zip(program.module()(images), net(images), strict=True):
        torch.testing.assert_close(level, expected)


def test_mmengine_counts_the_same_flops_with_fixed_batch_norm():
    counts = [
        get_model_complexity_info(
            FishNet(LITTLE, **options).eval(), (3, 64, 64), show_table=False, show_arch=False
        )
        for options in OPTIONS[:3]
    ]
    flops = [count['flops'] for count in counts]
    assert flops[0] == flops[1] == flops[2] > 0

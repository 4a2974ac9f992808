"""Activation memory, compared with counts by hand and with a real forward pass."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.complexity import build_classifier
from benchmarks.memory import (
    META_CHECKPOINTING,
    activation_memory,
    training_memory,
)
from mmfish.models import FishNet

FLOATS = 4 * 2 * 8 * 16 * 16  # bytes of (2, 8, 16, 16)


class Chain(nn.Module):
    """conv -> ReLU in place -> conv, once or several times, and a view between them."""

    def __init__(self, in_place: bool = True, with_cp: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=in_place)
        self.with_cp = with_cp

    def inner(self, x):
        return self.second(self.relu(self.first(x)).flatten(2).view(x.shape))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False) if self.with_cp else self.inner(x)


@pytest.mark.parametrize('in_place', [True, False])
def test_a_storage_counts_once(in_place):
    # The input for the first convolution, the result of the ReLU for itself and the second.
    x = torch.randn(2, 8, 16, 16)
    assert activation_memory(Chain(in_place), x) == 2 * FLOATS


def test_parameters_do_not_count():
    assert activation_memory(nn.Linear(64, 64, bias=False), torch.randn(2, 64)) == 4 * 2 * 64


def test_activations_that_are_discarded_do_not_count():
    def dropped(x):
        nn.functional.relu(weight * x)
        return x * weight

    weight = torch.ones(8, 1, 1, requires_grad=True)
    model = nn.Module()
    model.weight = nn.Parameter(weight)
    weight, model.forward = model.weight, dropped
    assert activation_memory(model, torch.randn(2, 8, 16, 16)) == FLOATS


def test_a_checkpointed_block_counts_its_input_alone():
    assert activation_memory(Chain(with_cp=True), torch.randn(2, 8, 16, 16)) == FLOATS


def test_the_backward_pass_still_works():
    model, x = Chain(), torch.randn(2, 8, 16, 16)
    activation_memory(model, x)
    model(x).sum().backward()
    assert model.first.weight.grad.abs().sum() > 0


def test_another_forward_pass_can_be_counted():
    model, x = Chain(), torch.randn(2, 8, 16, 16)
    assert activation_memory(model, x, forward=model.second) == FLOATS


def test_frozen_bn_saves_two_fifths_of_the_activation_memory():
    images = torch.empty(1, 3, 128, 128, device='meta')
    options = dict(norm_eval=True), dict(norm_cfg=dict(type='mmfish.FrozenBN'))
    nets = [FishNet('fishnet77', **more).to('meta').train() for more in options]
    plain, lean = (activation_memory(net, images) for net in nets)
    assert lean < 0.6 * plain


recomputes_on_meta = pytest.mark.skipif(
    torch.__version__ < META_CHECKPOINTING, reason='this torch cannot recompute on meta'
)


@pytest.mark.parametrize(
    'options', [{}, pytest.param(dict(with_cp=True), marks=recomputes_on_meta)]
)
def test_the_meta_device_counts_what_a_real_pass_keeps(options):
    model = build_classifier('fishnet77', **options).train()
    real = activation_memory(model, torch.randn(2, 3, 64, 64))
    assert training_memory('fishnet77', 2, 64, **options) == real > 0


def test_memory_is_proportional_to_the_batch():
    two, four, eight = (training_memory('fishnet77', n, 64) for n in (2, 4, 8))
    assert eight - four == 2 * (four - two)
    # What does not grow with it: mean and inverse deviation of each channel of each BatchNorm.
    norms = (m for m in build_classifier('fishnet77').modules() if isinstance(m, nn.BatchNorm2d))
    assert 2 * two - four == sum(2 * 4 * norm.num_features for norm in norms)


@pytest.mark.slow
@recomputes_on_meta
def test_fishnet150_needs_less_than_densenet161_as_in_the_paper():
    # 6505 to 9269 MB there, with weights and workspaces.
    fish, recomputed = (training_memory('fishnet150', with_cp=cp) for cp in (False, True))
    dense = training_memory('densenet161_3rdparty_in1k')
    assert recomputed < fish < dense
    assert fish / dense == pytest.approx(0.53, abs=0.01)

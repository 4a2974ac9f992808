"""The network is the released one in its numbers (see tests/data), keys and parameters."""

import copy
import json
import re
import zlib
from collections import namedtuple
from pathlib import Path

import mmpretrain.models
import numpy as np
import pytest
import torch

from mmfish.checkpoints import from_official
from mmfish.checkpoints.key_maps import our_name, their_name, whose_names
from mmfish.errors import CheckpointError
from mmfish.models import FishNet, FishNetClsHead

DATA = Path(__file__).parents[1] / 'data'
ARCHS = ('fishnet99', 'fishnet150', 'fishnet201')
REFERENCES = {name: json.loads((DATA / f'{name}.json').read_text()) for name in ARCHS}
TOLERANCE = 1e-9

Released = namedtuple('Released', 'reference state_dict classifier errors')


@pytest.fixture(scope='module', params=REFERENCES)
def released(request):
    """The reference, the weights it was computed with, and our network with these weights."""
    reference = REFERENCES[request.param]
    state_dict = {key: fill(key, shape) for key, shape in reference['state_dict']}
    classifier = mmpretrain.models.ImageClassifier(
        backbone=dict(type='mmfish.FishNet', arch=reference['model']),
        head=dict(type='mmfish.FishNetClsHead'),
    )
    classifier.double().load_state_dict(from_official(state_dict), strict=True)
    errors = {}
    yield Released(reference, state_dict, classifier.eval(), errors)
    for mode, error in errors.items():
        print(f'\n{request.param}: largest relative error {error:.1e} ({mode} mode)')


@pytest.mark.parametrize('case', [0, 1])
def test_logits_stages_and_levels_are_those_of_the_released_network(released, case):
    expected = released.reference['cases'][case]
    backbone = released.classifier.backbone
    stages = {}

    def keep(i):
        return lambda module, args, output: stages.update({i: output})

    def keep_input(i):
        return lambda module, args: stages.update({i: args[0]})

    hooks = [
        stage.register_forward_hook(keep(f'stage{i}'))
        for i, stage in enumerate([backbone.stem, *backbone.tail, backbone.bridge, *backbone.body])
    ] + [
        stage.refine.register_forward_pre_hook(keep_input(f'stage{i}'))
        for i, stage in enumerate(backbone.head, start=7)
    ]
    with torch.no_grad():
        *levels, stages['stage10'] = backbone(images(expected['input_shape']))
        logits = released.classifier.head((*levels, stages['stage10']))
    for hook in hooks:
        hook.remove()

    named_levels = dict(zip(('head_stride4', 'head_stride8', 'head_stride16'), levels, strict=True))
    errors = {}
    if 'stages' in expected:  # not of FishNet-201
        assert stages.keys() == expected['stages'].keys()
        assert named_levels.keys() == expected['head'].keys()
        errors = {
            name: relative_error(tensor, {**expected['stages'], **expected['head']}[name])
            for name, tensor in (stages | named_levels).items()
        }
    sample = released.reference['model'] == 'fishnet201'
    errors['logits'] = relative_error(logits, expected['logits'], unbiased=sample)
    released.errors['eval'] = max(*errors.values(), released.errors.get('eval', 0))
    assert {name: e for name, e in errors.items() if not e < TOLERANCE} == {}


def test_loss_and_every_gradient_in_train_mode_are_those_of_the_released_network(released):
    expected = released.reference['train']
    classifier = copy.deepcopy(released.classifier).train()
    logits = classifier(images(expected['input_shape']), mode='tensor')
    loss = logits.square().mean()
    loss.backward()

    our_name = released_to_ours(released.state_dict)
    parameters = dict(classifier.named_parameters())
    assert {our_name[key] for key in expected['grad']} == parameters.keys()
    norms = {key: parameters[our_name[key]].grad.norm().item() for key in expected['grad']}
    # Every path from this bias leads through a BatchNorm that subtracts it: only rounding is left.
    assert norms.pop('fish.fish.3.1.bias') < 1e-12 * max(norms.values())
    errors = {key: abs(norm / expected['grad'][key]['norm'] - 1) for key, norm in norms.items()}
    errors['loss'] = abs(loss.item() / expected['loss_value'] - 1)
    released.errors['train'] = max(errors.values())
    assert {name: e for name, e in errors.items() if not e < TOLERANCE} == {}


def test_every_released_tensor_gets_one_name_of_ours(released):
    renamed = from_official(released.state_dict)
    assert renamed.keys() == released.classifier.state_dict().keys()
    assert sorted(map(id, renamed.values())) == sorted(map(id, released.state_dict.values()))


@pytest.mark.parametrize(
    ('arch', 'expected'),
    [('fishnet99', 16_628_904), ('fishnet150', 24_959_400), ('fishnet201', 44_584_552)],
)
def test_parameter_count_with_1000_classes(arch, expected):
    with torch.device('meta'):
        modules = torch.nn.ModuleList([FishNet(arch), FishNetClsHead()])
    assert sum(p.numel() for p in modules.parameters()) == expected


def test_keys_with_the_prefix_of_data_parallel():
    plain = released_keys('fishnet99')
    prefixed = {f'module.{key}': tensor for key, tensor in plain.items()}
    assert from_official(prefixed) == from_official(plain)


@pytest.mark.parametrize('arch', ARCHS)
def test_a_missing_key_is_named_with_the_arch(arch):
    state_dict = released_keys(arch)
    del state_dict['fish.fish.5.1.0.bn2.running_var']
    with pytest.raises(
        CheckpointError, match=rf'{arch}: it lacks fish\.fish\.5\.1\.0\.bn2\.running_var'
    ):
        from_official(state_dict)


@pytest.mark.parametrize('arch', ARCHS)
def test_a_leftover_key_is_named_with_the_arch(arch):
    state_dict = released_keys(arch)
    state_dict['fish.fish.2.0.77.conv1.weight'] = torch.empty(128, 512, 1, 1)
    with pytest.raises(
        CheckpointError, match=rf'{arch}: .*unknown fish\.fish\.2\.0\.77\.conv1\.weight'
    ):
        from_official(state_dict)


def test_a_tensor_of_another_shape_is_named_with_the_arch_and_both_shapes():
    state_dict = released_keys('fishnet99')
    state_dict['fish.fish.2.0.1.conv2.weight'] = torch.empty(128, 4, 3, 3)
    message = r'fishnet99: .*tail\.2\.0\.1\.conv2\.weight.*\[128, 4, 3, 3\].*\[128, 128, 3, 3\]'
    with pytest.raises(CheckpointError, match=message):
        from_official(state_dict)


def test_another_number_of_classes_is_accepted():
    state_dict = released_keys('fishnet99')
    state_dict['fish.fish.9.4.1.weight'] = torch.empty(10, 1056, 1, 1)
    state_dict['fish.fish.9.4.1.bias'] = torch.empty(10)
    assert from_official(state_dict)['head.score.6.weight'].shape == (10, 1056, 1, 1)


def test_a_file_without_batch_counters_from_before_torch_0_4_1_is_accepted():
    """The authors used torch 0.4.0. PyTorch's load_state_dict adds the counters."""
    state_dict = {
        key: tensor
        for key, tensor in released_keys('fishnet99').items()
        if not key.endswith('num_batches_tracked')
    }
    with torch.device('meta'):
        modules = torch.nn.ModuleDict(dict(backbone=FishNet('fishnet99'), head=FishNetClsHead()))
    modules.load_state_dict(from_official(state_dict), strict=True, assign=True)


@pytest.mark.parametrize(
    'state_dict',
    [
        {'layer1.0.conv1.weight': torch.empty(64, 64, 1, 1)},
        {'state_dict': {}, 'epoch': 3},
    ],
    ids=['another network', 'a file, not its state dict'],
)
def test_another_state_dict_is_refused_and_one_of_its_keys_named(state_dict):
    with pytest.raises(CheckpointError, match='|'.join(map(re.escape, state_dict))):
        from_official(state_dict)


@pytest.mark.parametrize('source', ['official', 'pytorchcv'])
@pytest.mark.parametrize('arch', ARCHS)
def test_names_convert_to_the_others_and_back(arch, source):
    with torch.device('meta'):
        modules = torch.nn.ModuleDict(dict(backbone=FishNet(arch), head=FishNetClsHead()))
    ours = list(modules.state_dict())
    theirs = [their_name(key, source) for key in ours]
    assert whose_names(theirs) == source
    assert len({*ours, *theirs}) == 2 * len(ours)
    assert [our_name(key, source) for key in theirs] == ours


def test_an_empty_state_dict_is_refused():
    with pytest.raises(CheckpointError, match='fishnet'):
        from_official({})


def fill(key, shape):
    """The recipe in the reference files under 'fill'."""
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith('num_batches_tracked'):
        values = np.zeros(shape)
    elif key.endswith('running_var'):
        values = rng.uniform(0.5, 1.5, shape)
    elif key.endswith('running_mean'):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif key.endswith('weight'):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(values))


def images(shape):
    return torch.from_numpy(np.random.RandomState(0).standard_normal(shape))


def relative_error(tensor, expected, *, unbiased=False):
    """The largest deviation of recorded values and statistics, relative to the tensor's scale."""
    assert list(tensor.shape) == expected['shape']
    values = tensor.flatten()[expected['at']] - tensor.new_tensor(expected['values'])
    deviations = [
        (values.abs().max() / max(map(abs, expected['values']))).item(),
        (tensor.mean().item() - expected['mean']) / expected['abs_mean'],
        tensor.abs().mean().item() / expected['abs_mean'] - 1,
        tensor.std(unbiased=unbiased).item() / expected['std'] - 1,
    ]
    return max(map(abs, deviations))


def released_to_ours(state_dict):
    ours = {id(tensor): name for name, tensor in from_official(state_dict).items()}
    return {key: ours[id(tensor)] for key, tensor in state_dict.items()}


def released_keys(arch):
    """The keys and shapes of a released state dict."""
    shapes = REFERENCES[arch]['state_dict']
    return {key: torch.empty(shape, device='meta') for key, shape in shapes}

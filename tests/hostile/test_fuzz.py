"""Any arch, image size or state dict works, or ends in an error of mmfish's own.

``HYPOTHESIS_PROFILE=long`` tries a hundred times as many.
"""

import os

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mmfish.checkpoints import from_official, from_pytorchcv, to_official
from mmfish.checkpoints.key_maps import their_name
from mmfish.checkpoints.loading import backbone_in, check_fit, read_state_dict, state_dict_in
from mmfish.errors import CheckpointError, ConfigError
from mmfish.models import FishNet, FishNetClsHead
from mmfish.models.fishnet import DILATION, DOWN_SAMPLE, STEM_STRIDE

common = dict(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile('short', max_examples=25, **common)
settings.register_profile('long', max_examples=2500, **{**common, 'derandomize': False})
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'short'))


def one_line(error, *parts):
    assert '\n' not in str(error)
    assert all(part in str(error) for part in parts)


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**12),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def mostly(strategy):
    """Good values, and junk now and then."""
    return st.integers(0, 15).flatmap(lambda n: junk if n == 0 else strategy)


channels = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
blocks = st.integers(1, 3)


@st.composite
def archs(draw):
    stages = draw(st.integers(1, 4))

    def each(numbers):
        return mostly(st.tuples(*[mostly(numbers)] * stages) if draw(st.integers(0, 9)) else junk)

    width = draw(st.sampled_from([4, 8, 12, 16]))
    # Most widths of a body divide what is to be reduced there, or few would ever be built.
    fitting = st.sampled_from([width, width // 2, width // 4])
    arch = dict(
        stem=draw(mostly(channels)),
        tail=dict(channels=draw(each(st.just(width))), blocks=draw(each(blocks))),
        bridge=dict(blocks=draw(mostly(blocks))),
        body=dict(
            channels=draw(each(fitting)), blocks=draw(each(blocks)), transfers=draw(each(blocks))
        ),
        head=dict(blocks=draw(each(blocks)), transfers=draw(each(blocks))),
    )
    if draw(st.booleans()):
        arch['expansion'] = draw(mostly(st.sampled_from([1, 2, 4])))
    if draw(st.integers(0, 4)) == 0:
        arch['group_width'] = draw(mostly(st.integers(1, 4)))
    if draw(st.integers(0, 15)) == 0:
        arch.pop(draw(st.sampled_from(sorted(arch))))
    return arch


options = st.fixed_dictionaries(
    {},
    optional=dict(
        in_channels=mostly(st.integers(1, 4)),
        out_indices=mostly(st.lists(st.integers(-1, 4), max_size=4).map(tuple)),
        frozen_stages=mostly(st.integers(-1, 12)),
        norm_cfg=mostly(
            st.sampled_from(
                [dict(type='BN'), dict(type='GN', num_groups=2), dict(type='mmfish.FrozenBN'), {}]
            )
        ),
        down_sample=mostly(st.sampled_from(DOWN_SAMPLE)),
        dilation=mostly(st.sampled_from(DILATION)),
        stem=mostly(st.sampled_from(sorted(STEM_STRIDE))),
    ),
)


@given(arch=mostly(archs()), options=options, size=st.tuples(*[st.integers(1, 150)] * 2))
def test_any_arch_works_or_is_refused(arch, options, size):
    try:
        with torch.device('meta'):
            net = FishNet(arch, **options).eval()
            levels = net(torch.empty(1, net.in_channels, *size))
    except ConfigError as error:
        hypothesis.event('refused')
        one_line(error)
        return
    hypothesis.event('built')
    assert tuple(level.shape[1] for level in levels) == net.out_channels
    assert all(min(level.shape) > 0 for level in levels)


@pytest.fixture(scope='module')
def net():
    return FishNet('fishnet55', stem='conv3x3').eval()


shapes = st.one_of(
    st.tuples(st.integers(0, 2), st.just(3), st.integers(0, 130), st.integers(0, 130)),
    st.lists(st.integers(0, 40), max_size=5).map(tuple),
)


@given(shape=shapes)
def test_images_of_any_size_work_or_are_refused(net, shape):
    try:
        with torch.no_grad():
            levels = net(torch.zeros(shape))
    except ConfigError as error:
        one_line(error)
        return
    assert all(level.isfinite().all() for level in levels)


with torch.device('meta'):
    CLASSIFIER = nn.ModuleDict(dict(backbone=FishNet('fishnet99'), head=FishNetClsHead(10)))
OURS = dict(CLASSIFIER.state_dict())
KNOWN = {
    'mmfish': OURS,
    'official': {their_name(key, 'official'): tensor for key, tensor in OURS.items()},
    'pytorchcv': {their_name(key, 'pytorchcv'): tensor for key, tensor in OURS.items()},
}
tensors = st.lists(st.integers(0, 3), max_size=4).map(lambda shape: torch.empty(shape))


@st.composite
def state_dicts(draw):
    state_dict = dict(draw(st.sampled_from([{}, *KNOWN.values()])))
    keys = st.sampled_from(sorted(k for known in KNOWN.values() for k in known))
    pieces = st.sampled_from(['fish', 'features', 'hg', 'backbone', 'head', 'module', '0', '9'])
    keys |= st.lists(pieces, min_size=1, max_size=5).map('.'.join) | st.text(max_size=5)
    for _ in range(draw(st.integers(0, 3))):
        key = draw(mostly(keys))
        if draw(st.booleans()):
            state_dict.pop(key if isinstance(key, str) else '', None)
        elif isinstance(key, str | int | None):
            state_dict[key] = draw(mostly(tensors))
    if draw(st.booleans()):
        state_dict = {f'module.{key}': value for key, value in state_dict.items()}
    return state_dict


def backbone_of_the_file(state_dict):
    return backbone_in(state_dict, 'the file')


@pytest.mark.slow
@given(state_dict=state_dicts())
def test_any_state_dict_is_renamed_or_refused(state_dict):
    for rename in (from_official, from_pytorchcv, to_official, backbone_of_the_file):
        try:
            rename(state_dict)
        except CheckpointError as error:
            one_line(error)
    try:
        check_fit(CLASSIFIER, state_dict_in(state_dict, 'the file'), 'the file')
    except CheckpointError as error:
        one_line(error)


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp('fuzz') / 'weights.pth'
    torch.save({'stem.0.weight': torch.ones(2, 3), 'stem.0.bias': torch.ones(2)}, path)
    return path, path.read_bytes()


@given(data=st.data())
def test_a_file_with_any_damage_is_read_or_refused(content, data):
    path, whole = content
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        read_state_dict(str(path))
    except CheckpointError as error:
        one_line(error, str(path))

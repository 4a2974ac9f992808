"""How configs find FishNet. It depends on what is imported, so each test has its own process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmfish
from mmfish.registry import DATASETS, HOOKS, LOOPS, MODELS, TRANSFORMS

pytestmark = pytest.mark.slow

# Each of these is a user's code, which goes on in the tests.
PREAMBLE = """
import sys
import torch
from mmengine.registry import DefaultScope, MODELS as MMENGINE

SCOPES = (None, 'mmengine', 'mmdet', 'mmpretrain', 'mmfish')

def builds(registry, name, scope=None):
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        net = registry.build(dict(type=name, arch='fishnet77', out_indices=(1, 3)))
    assert type(net).__module__ == 'mmfish.models.fishnet', type(net)
    assert net.out_channels == (208, 528)

def is_unknown(registry, name, scope=None):
    with DefaultScope.overwrite_default_scope(scope):
        try:
            registry.build(dict(type=name))
        except KeyError as error:
            assert 'FishNet is not in the' in str(error), error
            return True
    return False
"""
REGISTRIES = """
from mmdet.registry import MODELS as MMDET
from mmpretrain.registry import MODELS as MMPRETRAIN
"""


@pytest.mark.parametrize(
    ('package', 'scope'), [('mmdet', 'mmdet'), ('mmpretrain', 'mmpretrain'), ('mmengine', None)]
)
def test_scoped_name_builds_where_nobody_imports_mmfish(run, package, scope):
    run(f"""
from {package}.registry import MODELS
assert is_unknown(MODELS, 'FishNet', {scope!r})
assert 'mmfish' not in sys.modules
for any_scope in ({scope!r}, *SCOPES):
    builds(MODELS, 'mmfish.FishNet', any_scope)
""")


def test_both_names_build_from_every_registry_and_scope_after_import_mmfish(run):
    run(f"""
import mmfish
{REGISTRIES}
for registry in (MMENGINE, MMDET, MMPRETRAIN):
    for scope in SCOPES:
        builds(registry, 'FishNet', scope)
        builds(registry, 'mmfish.FishNet', scope)
""")


def test_plain_name_builds_from_every_registry_with_custom_imports(run, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['mmfish'], allow_failed_imports=False)\n"
        "backbone = dict(type='FishNet', arch='fishnet77', out_indices=(3,))\n"
    )
    run(f"""
from mmengine.config import Config
{REGISTRIES}
assert is_unknown(MMDET, 'FishNet', 'mmdet')
backbone = Config.fromfile({str(config)!r}).backbone
for registry, scope in ((MMENGINE, None), (MMDET, 'mmdet'), (MMPRETRAIN, 'mmpretrain')):
    with DefaultScope.overwrite_default_scope(scope):
        assert registry.build(backbone).out_channels == (528,)
""")


def test_import_mmfish_replaces_no_registered_component(run):
    ours = {
        name
        for registry in (MODELS, HOOKS, LOOPS, DATASETS, TRANSFORMS)
        for name in registry.module_dict
    }
    assert {'FishNet', 'FrozenBN'} < ours
    run(f"""
import mmengine.registry
{REGISTRIES}
from mmengine.registry import Registry

def tree(registry):
    yield registry
    for child in registry.children.values():
        yield from tree(child)

roots = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
trees = [list(tree(root)) for root in roots]
for registry in sum(trees, []):
    registry.import_from_location()

def what_names_stand_for():
    found = {{}}
    for registries in trees:
        names = {ours!r}.union(*(registry.module_dict for registry in registries))
        for registry in registries:
            for name in names:
                found[registry.scope, registry.name, name] = registry.get(name)
    return {{key: component for key, component in found.items() if component is not None}}

before = what_names_stand_for()
assert len(before) > 1000
assert before['mmdet', 'model', 'FrozenBN'].__module__.startswith('mmdet.')
assert 'mmfish' not in sys.modules
import mmfish
after = what_names_stand_for()
changed = {{key: after.get(key) for key in before if after.get(key) is not before[key]}}
assert not changed, changed
new = {{key[2] for key in after.keys() - before.keys()}}
assert new <= {ours!r}, new - {ours!r}
assert 'FishNet' in new and 'FrozenBN' not in new, new
""")


def test_import_mmfish_leaves_the_packages_that_print_notices_until_they_are_used(run):
    run("""
import mmdet.models
from mmengine.registry import HOOKS, METRICS

# MMDetection 3.3 imports its own with its models.
noisy = {'mmdet.datasets', 'mmdet.evaluation', 'mmpretrain.datasets'} - sys.modules.keys()
import mmfish
assert not noisy & sys.modules.keys()
assert HOOKS.get('mmfish.RecordHook') and METRICS.get('mmfish.BoxAreaCocoMetric')
assert 'mmdet.evaluation' in sys.modules
""")


def test_frozen_bn_is_mmdetections_without_the_scope_and_ours_with_it(run):
    run(f"""
{REGISTRIES}
from mmcv.cnn import build_norm_layer
from mmdet.models.layers import FrozenBatchNorm2d

def layer(name, scope):
    with DefaultScope.overwrite_default_scope(scope):
        try:
            return type(build_norm_layer(dict(type=name), 4)[1])
        except KeyError:
            return None  # unknown

plain = {{scope: layer('FrozenBN', scope) for scope in SCOPES[:-1]}}
assert plain == {{None: None, 'mmengine': None, 'mmdet': FrozenBatchNorm2d, 'mmpretrain': None}}
import mmfish
from mmfish.models import FrozenBN
assert plain == {{scope: layer('FrozenBN', scope) for scope in SCOPES[:-1]}}
assert layer('FrozenBN', 'mmfish') is FrozenBN
for scope in SCOPES:
    assert layer('mmfish.FrozenBN', scope) is FrozenBN
""")


def test_building_in_an_unusable_environment_says_what_is_missing(run):
    run("""
sys.modules['mmpretrain'] = None  # not installed
try:
    MMENGINE.build(dict(type='mmfish.FishNet'))
except RuntimeError as error:
    assert 'mmfish needs mmpretrain' in str(error), error
else:
    raise AssertionError('it built')
""")


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Code -> a fresh Python that finds the mmfish under test."""
    root = str(Path(mmfish.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    env = {**os.environ, 'PYTHONPATH': path}
    if env.pop('PYTHONDONTWRITEBYTECODE', None):
        # Compiling all of the mm packages again takes each process 10 seconds.
        env['PYTHONPYCACHEPREFIX'] = str(tmp_path_factory.mktemp('pycache'))

    def run_(code):
        command = [sys.executable, '-W', 'ignore', '-c', PREAMBLE + code]
        result = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr

    return run_


def test_what_mmfish_offers_is_listed():
    assert set(mmfish.__all__) <= set(dir(mmfish))

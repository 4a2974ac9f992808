"""The `mmfish` scope.

MMEngine imports ``<scope>.registry`` by itself when it meets ``type='<scope>.X'``, so these
children of its root registries are all that ``type='mmfish.FishNet'`` needs in any OpenMMLab
config. `publish` adds their components to the roots, which every scope falls back to: that makes
plain ``type='FishNet'`` work once mmfish has been imported.
"""

import mmfish.whole_stack  # noqa: F401  # isort: skip
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='mmfish', locations=['mmfish.models'])
HOOKS = Registry(
    'hook',
    parent=MMENGINE_HOOKS,
    scope='mmfish',
    locations=['mmfish.engine', 'mmfish.engine.records'],
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmfish', locations=['mmfish.engine'])
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='mmfish', locations=['mmfish.engine.metrics']
)
RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, scope='mmfish', locations=['mmfish.engine'])
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='mmfish', locations=['mmfish.datasets']
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope='mmfish',
    locations=['mmfish.checkpoints'],
)
# None of these is published: their plain names are MMCV's and MMDetection's.
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmfish', locations=['mmfish.datasets']
)

NOT_PUBLISHED = ('FrozenBN',)  # plain ``FrozenBN`` is MMDetection's


def component(kind: Any, registry: Registry, scope: str | None = None) -> Any:
    """What a config's ``type`` stands for, whichever way it is written.

    Args:
        kind: a name, with a scope before it or not (``'mmengine.CheckpointHook'``), the path of an
            import, or the class or function itself, as in pure-Python configs.
        registry: one of MMEngine's root registries, or a child of one.
        scope: the config's ``default_scope``. Defaults to the current one.

    Returns:
        The class or function; None if nothing is registered under the name.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def type_name(part: Mapping[str, Any]) -> str:
    """The name of the class that a part of a config is for, without its scope; '' if it has none.

    Args:
        part: whose ``type`` is a name, or the class itself as in pure-Python configs.
    """
    kind = part.get('type', '')
    return getattr(kind, '__name__', str(kind).rpartition('.')[2])


def pretrained_cfg(init_cfg: Any) -> dict | None:
    """The part of an ``init_cfg`` that loads weights: the last one of type ``Pretrained``, if any.

    Args:
        init_cfg: of any model: a dict, a list of dicts, or None.
    """
    parts = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    pretrained = [
        part
        for part in parts
        if isinstance(part, dict)
        and component(part.get('type'), MMENGINE_WEIGHT_INITIALIZERS) is PretrainedInit
    ]
    return pretrained[-1] if pretrained else None


def publish() -> None:
    """Add the components of mmfish to MMEngine's root registries under their plain names.

    No name is added that another package has in a registry of its own, because a plain name must
    stand for the same component before and after ``import mmfish``. What is imported when it is
    first used, such as `mmfish.engine.records`, has its name with the scope alone.
    """
    for module in ('mmfish.models', 'mmfish.engine'):
        import_module(module)
    for registry in (MODELS, HOOKS, LOOPS):
        for name, component in registry.module_dict.items():
            if name not in NOT_PUBLISHED and name not in registry.parent.module_dict:
                registry.parent.register_module(name=name, module=component)

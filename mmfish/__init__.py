"""FishNet for MMDetection: backbone, configs, weights and tools.

Importing mmfish makes ``type='FishNet'`` known to every OpenMMLab package;
``type='mmfish.FishNet'`` works without any import. Where torch is not installed, `mmfish.deploy`
runs exported files, and all else says what it needs when it is first used.
"""

from importlib import import_module
from importlib.util import find_spec

from mmfish.stack import folder
from mmfish.version import __version__

if folder('torch'):
    import mmfish.checkpoints  # noqa: F401  makes pytorchcv:// and official:// known
    from mmfish.registry import publish

    publish()

__all__ = ['__version__', 'config_path', 'export', 'fuse', 'own_data', 'plug_in']
# Imported when they are first used: some need MMDetection's data sets and models, the import of
# which takes seconds and prints notices.
LAZY = dict(
    config_path='mmfish.config.paths',
    export='mmfish.deploy',
    fuse='mmfish.models.fusion',
    own_data='mmfish.config.own_data',
    plug_in='mmfish.config.plug_in',
)


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})


def __getattr__(name: str) -> object:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    if not name.startswith('_') and find_spec(f'mmfish.{name}'):
        return import_module(f'mmfish.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
